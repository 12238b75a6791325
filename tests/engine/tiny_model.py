"""A tiny language model, made here and now: a table of probabilities in the shape of a GGUF file.

The network is a llama of two layers that add nothing (their output projections are zero), so what reaches the
output matrix is the embedding of the last token alone. Embeddings are one-hot, so the output matrix *is* the
table: column `i` holds the logarithms of the chances of every token after token `i`. What a test can rely on:

- greedy decoding walks a ring through all of `words.txt`: every word has one likeliest successor and no two
  words share it. An answer therefore tells which prompt it belongs to, and never ends by itself;
- the likeliest successor has the chance `LIKELIEST`, so its log probability is known as well;
- ` emoji` is followed by U+1F600, spelt one byte per token, and by ` emoji` again;
- ` end` is followed by the end of the text;
- ` call` is followed by the beginning of a tool call; where tools are given, llama.cpp's grammar makes it whole;
- 16 of `FILLER` in a row are one token of 1 KiB, so that a prompt of 1 MiB is 1,024 tokens and soon read.
"""

import argparse
import math
import random
from pathlib import Path

import gguf
import numpy as np

WORDS = Path(__file__).with_name("words.txt").read_text(encoding="utf-8").split()
EMOJI_WORD, END_WORD, CALL_WORD = "emoji", "end", "call"
FILLER = "confidentialinferenceneedsevidenceandnotpromisesbeforeanysecret"
assert len(FILLER) == 63

LIKELIEST = 0.7
CONTEXT = 32_768
# The embeddings are one-hot, so the width bounds the vocabulary.
WIDTH, LAYERS, HEADS, HEAD_WIDTH, FEED_FORWARD = 1024, 2, 4, 64, 64
# A vector of one-hot times this has a root mean square of 1, which RMSNorm leaves as it is.
ONE_HOT = math.sqrt(WIDTH)
# Stands for "never": far below any logarithm in the table, and still exact in half precision.
NEVER = -64.0

CALL_BEGINS = "<tool_call>"
# The conversation as one text, with the last message at its end. Tools are told and called as Hermes models do it.
CHAT_TEMPLATE = """\
{%- if tools %} tools{% for tool in tools %} <tools> {{ tool | tojson }} </tools>{% endfor %}
 To call one, say <tool_call>{"name": name, "arguments": arguments}</tool_call>{% endif -%}
{%- for message in messages %} {{ message.role }}
{%- for call in message.tool_calls or [] %} <tool_call>
{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}
</tool_call>{% endfor %}
{%- if message.content %} {{ message.content }}{% endif %}
{%- endfor %}"""

SPACE = "\u2581"  # SentencePiece's visible blank
UNKNOWN, BEGIN, END = 0, 1, 2
FIRST_BYTE = 3


def vocabulary():
    """Returns (piece, score, token type) for every id."""
    kind = gguf.TokenType
    tokens = [("<unk>", 0.0, kind.UNKNOWN), ("<s>", 0.0, kind.CONTROL), ("</s>", 0.0, kind.CONTROL)]
    tokens += [(f"<0x{byte:02X}>", 0.0, kind.BYTE) for byte in range(256)]
    # The tokeniser merges two neighbours at a time, so a word needs all its beginnings; longer ones win.
    pieces = {SPACE: None}
    for word in [*WORDS, EMOJI_WORD, END_WORD, CALL_WORD, FILLER]:
        pieces |= {SPACE + word[:length]: None for length in range(1, len(word) + 1)}
    pieces |= {(SPACE + FILLER) * times: None for times in (2, 4, 8, 16)}
    tokens += [(piece, 10.0 * len(piece) - 1000.0, kind.NORMAL) for piece in pieces]
    tokens.append((CALL_BEGINS, -1000.0, kind.NORMAL))
    assert len(tokens) <= WIDTH, f"{len(tokens)} tokens do not fit a width of {WIDTH}"
    return tokens


def chances(tokens, seed):
    """Returns the table: row `i` holds the chance of every token after token `i`."""
    ids = {piece: index for index, (piece, _, _) in enumerate(tokens)}
    ring = [ids[SPACE + word] for word in WORDS]
    draw = random.Random(seed)
    draw.shuffle(ring)
    successor = dict(zip(ring, ring[1:] + ring[:1]))
    byte = [FIRST_BYTE + value for value in range(256)]
    emoji, end, call = (ids[SPACE + word] for word in (EMOJI_WORD, END_WORD, CALL_WORD))

    table = np.zeros((len(tokens), len(tokens)))
    for token in range(len(tokens)):
        likeliest = successor.get(token, ring[token % len(ring)])
        table[token, likeliest] = LIKELIEST
        for other in draw.sample([word for word in ring if word != likeliest], 4):
            table[token, other] = 0.04
        for rare in [*(byte[ord(mark)] for mark in ".,!?\n"), byte[0xF0], END]:
            table[token, rare] = 0.02

    def only(token, row):
        table[token] = 0
        for follower, chance in row.items():
            table[token, follower] = chance

    # Under a grammar: JSON without white space, strings that are empty where they may be, and one call of a tool.
    for mark, followers in {"{": '"}', '"': '":}', ":": '"{', ",": '"{', "}": "}<", "\n": '{"'}.items():
        first, *others = (byte[ord(follower)] for follower in followers)
        only(byte[ord(mark)], {first: LIKELIEST} | dict.fromkeys(others, (1 - LIKELIEST) / len(others)))
    only(byte[ord(">")], {END: 1.0})
    only(end, {END: 1.0})
    only(call, {ids[CALL_BEGINS]: 1.0})
    only(ids[CALL_BEGINS], {byte[ord("\n")]: 1.0})
    only(emoji, {byte[0xF0]: 1.0})
    only(byte[0xF0], {byte[0x9F]: 1.0})
    only(byte[0x9F], {byte[0x98]: 1.0})
    # U+1F600 to U+1F60F, the first of them the likeliest.
    only(byte[0x98], {byte[0x80 + low]: 0.02 for low in range(16)} | {byte[0x80]: LIKELIEST})
    for low in range(16):
        only(byte[0x80 + low], {emoji: LIKELIEST, ring[low]: 1 - LIKELIEST})
    assert np.allclose(table.sum(axis=1), 1)
    return table


def tensors(table):
    """Yields (name, array) for every tensor of the network."""
    size = len(table)
    embedding = np.zeros((size, WIDTH), np.float16)
    np.fill_diagonal(embedding, ONE_HOT)
    output = np.zeros((size, WIDTH), np.float16)
    with np.errstate(divide="ignore"):
        output[:, :size] = np.maximum(np.log(table), NEVER).T / ONE_HOT
    norm = np.ones(WIDTH, np.float32)
    yield "token_embd.weight", embedding
    yield "output.weight", output
    yield "output_norm.weight", norm

    noise = np.random.default_rng(0)

    def some(rows, columns):
        return (noise.standard_normal((rows, columns)) * 0.02).astype(np.float16)

    inner = HEADS * HEAD_WIDTH
    for layer in range(LAYERS):
        block = {
            "attn_norm": norm,
            "attn_q": some(inner, WIDTH),
            "attn_k": some(HEAD_WIDTH, WIDTH),
            "attn_v": some(HEAD_WIDTH, WIDTH),
            "attn_output": np.zeros((WIDTH, inner), np.float16),
            "ffn_norm": norm,
            "ffn_gate": some(FEED_FORWARD, WIDTH),
            "ffn_up": some(FEED_FORWARD, WIDTH),
            "ffn_down": np.zeros((WIDTH, FEED_FORWARD), np.float16),
        }
        for name, array in block.items():
            yield f"blk.{layer}.{name}.weight", array


def write(path, seed=7):
    """Writes the model to `path`."""
    tokens = vocabulary()
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("sealgate-tiny")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(1)
    writer.add_key_length(HEAD_WIDTH)
    writer.add_value_length(HEAD_WIDTH)
    writer.add_rope_dimension_count(HEAD_WIDTH)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("llama")
    writer.add_token_list([piece.encode() for piece, _, _ in tokens])
    writer.add_token_scores([score for _, score, _ in tokens])
    writer.add_token_types([kind for _, _, kind in tokens])
    writer.add_unk_token_id(UNKNOWN)
    writer.add_bos_token_id(BEGIN)
    writer.add_eos_token_id(END)
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(True)
    writer.add_chat_template(CHAT_TEMPLATE)
    for name, array in tensors(chances(tokens, seed)):
        writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main():
    parser = argparse.ArgumentParser(description="write the tiny model to a GGUF file")
    parser.add_argument("path")
    parser.add_argument("--seed", type=int, default=7)
    arguments = parser.parse_args()
    write(arguments.path, arguments.seed)


if __name__ == "__main__":
    main()

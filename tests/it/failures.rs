//! Bad days of nodes and of the gateway itself.

use serde_json::json;

use crate::harness::{
    Engine, Process, Reply, Setup, prompt,
    setup::{Files, error_of},
    soon,
};

#[tokio::test]
async fn a_node_that_restarts_is_attested_again_unseen_by_the_client() {
    let mut setup = Setup::start().await;
    assert_eq!(
        setup
            .complete(json!({"prompt": prompt("x")}))
            .await
            .status(),
        200
    );
    let port = setup.node.url.rsplit_once(':').unwrap().1.to_owned();
    let config = setup.dir.path().join("node-a.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(
        &config,
        text.replace("127.0.0.1:0", &format!("127.0.0.1:{port}")),
    )
    .unwrap();
    setup.node.kill().await;
    setup.node = Process::start("node", &config).await;
    let reply = setup.complete(json!({"prompt": prompt("y")})).await;
    assert_eq!(reply.status(), 200, "{}", setup.gateway.log());
    assert_eq!(setup.engine.received().len(), 2);
}

#[tokio::test]
async fn a_dead_node_is_passed_over_for_a_living_one() {
    let (files, engine) = (Files::new(), Engine::start().await);
    let mut first = Process::start("node", &files.node("node-a", &engine, "")).await;
    let second = Process::start("node", &files.node("node-b", &engine, "")).await;
    let config = files.gateway(&[&first.url, &second.url], "");
    let gateway = Process::start("gateway", &config).await;
    let setup = Setup {
        dir: files.dir,
        engine,
        node: second,
        gateway,
        client: reqwest::Client::new(),
    };
    let models = setup.get("/v1/models").await;
    assert_eq!(models.status(), 200, "both nodes were attested");
    first.kill().await;
    drop(first);
    for _ in 0..8 {
        let reply = setup.complete(json!({"prompt": prompt("x")})).await;
        assert_eq!(reply.status(), 200);
        assert_eq!(reply.headers()["sealgate-node"], "node-b");
    }
    assert_eq!(setup.engine.received().len(), 8);
}

#[tokio::test]
async fn no_node_at_all_is_said_at_once() {
    let mut setup = Setup::start().await;
    assert_eq!(
        setup.get("/v1/models").await.status(),
        200,
        "the node was attested"
    );
    setup.node.kill().await;
    let reply = setup.complete(json!({"prompt": prompt("x")})).await;
    assert!(reply.headers().contains_key("retry-after"));
    let (status, error) = error_of(reply).await;
    assert_eq!((status, &error["code"]), (503, &json!("no_node_available")));
}

#[tokio::test]
async fn sigterm_lets_the_stream_end_and_refuses_new_work() {
    for role in ["gateway", "node"] {
        let mut setup = Setup::start().await;
        let feed = setup.engine.stream();
        let (mut stream, ()) = tokio::join!(setup.stream(json!({"prompt": prompt("x")})), async {
            feed.text("a").await;
        });
        assert_eq!(stream.text().await, "a");
        let process = if role == "gateway" {
            &mut setup.gateway
        } else {
            &mut setup.node
        };
        process.terminate().await;
        let readyz = format!("{}/readyz", process.url);
        let ready = async || {
            let reply = reqwest::get(&readyz).await;
            reply.is_ok_and(|reply| reply.status() == 200)
        };
        soon("it drains", async { while ready().await {} }).await;
        let asked = setup.post(json!({"model": "tiny", "prompt": prompt("y")}).to_string());
        match asked.send().await {
            Err(error) => assert!(role == "gateway" && error.is_connect(), "{role}: {error}"),
            Ok(reply) => {
                let (status, error) = error_of(reply).await;
                let codes = ["draining", "no_node_available"];
                let code = error["code"].as_str().unwrap();
                assert!(status == 503 && codes.contains(&code), "{role}: {error}");
            }
        }
        feed.text("b").await;
        assert_eq!(stream.text().await, "b", "{role}");
        feed.done().await;
        drop(feed);
        let (events, end) = stream.rest().await;
        end.unwrap();
        assert_eq!(events.last().unwrap(), "[DONE]", "{role}");
        let process = if role == "gateway" {
            &mut setup.gateway
        } else {
            &mut setup.node
        };
        let status = soon("the drained process ends", process.ended()).await;
        assert!(status.success(), "{role}: {status}");
    }
}

#[tokio::test]
async fn an_engine_that_is_not_there_executed_nothing() {
    let (files, engine) = (Files::new(), Engine::start().await);
    let config = files.node("node-a", &engine, "models = [\"tiny\"]\n");
    let text = std::fs::read_to_string(&config).unwrap();
    let nowhere = text.replace(&engine.address.to_string(), "127.0.0.1:1");
    let node = Process::start("node", &files.write("node-a.toml", &nowhere)).await;
    let gateway = Process::start("gateway", &files.gateway(&[&node.url], "")).await;
    let setup = Setup {
        dir: files.dir,
        engine,
        node,
        gateway,
        client: reqwest::Client::new(),
    };
    let reply = setup.complete(json!({"prompt": prompt("x")})).await;
    assert!(reply.headers().contains_key("retry-after"));
    let (status, error) = error_of(reply).await;
    assert_eq!((status, &error["code"]), (503, &json!("no_node_available")));
}

#[tokio::test]
async fn an_engine_that_has_no_such_model_says_so_to_the_caller() {
    let setup = Setup::start().await;
    setup.engine.reply(Reply::Json(
        404,
        json!({"error": {"message": "no such model", "code": 404}}),
    ));
    let (status, error) = error_of(setup.complete(json!({"prompt": prompt("x")})).await).await;
    assert_eq!((status, &error["code"]), (404, &json!("404")));
}

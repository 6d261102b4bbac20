//! A threat level that not every interface takes.

use axum::http::Method;
use hub_daemon::command::switch::SwitchCommand;
use hub_daemon::command::{Command, Problem, Rejection, RejectionKind};
use hub_daemon::inputs::CommandRequest;
use hub_daemon::inputs::rest::router;
use serde_json::json;
use tokio::sync::mpsc;

use crate::switching::Switching;

#[tokio::test]
async fn an_interface_that_refuses_a_threat_level_keeps_no_other_from_being_told() {
    let mut hub = Switching::start().await;
    let (commands, mut requests) = mpsc::channel::<CommandRequest>(16);
    let core = std::mem::replace(&mut hub.fake.hub.commands, commands);
    hub.fake.router = router(hub.fake.hub.clone());
    tokio::spawn(async move {
        while let Some((command, answer)) = requests.recv().await {
            let is_first = matches!(&command,
                Command::Switch(SwitchCommand::Threat { interface, .. }) if interface == "web-1");
            if is_first {
                let problems = vec![Problem::new("", "it is gone")];
                answer.send(Err(Rejection { kind: RejectionKind::Conflict, problems })).unwrap();
            } else {
                core.send((command, answer)).await.unwrap();
            }
        }
    });
    let put = hub.fake.send(Method::PUT, "/v1/threat-level", &json!({"level": "severe"})).await;
    put.assert_problem(409);
    assert_eq!(put.body["errors"][0]["detail"], "interface `web-1`: it is gone", "{}", put.body);
    assert_eq!(hub.fake.get("/v1/interfaces/web-2").await.body["level"], "severe");
}

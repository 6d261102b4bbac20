//! `hubctl pools` and `hubctl gc`.

use axum::http::Method;

use super::client::Client;
use super::exit::{Failure, count};
use super::output::Output;
use super::table::{section, table};
use crate::inputs::rest::{Orphans, PoolList};
use crate::view::PoolView;

pub(super) async fn pools(client: &Client, output: Output) -> Result<(), Failure> {
    let answer = client.get("/v1/pools").await?;
    output.show(&answer.body, |list: &PoolList| {
        if list.pools.is_empty() {
            return "no pools in hub.yaml".to_owned();
        }
        table(["POOL", "PREFIXES", "RANGES", "RESTING", "IPV4 USED", "IPV6 USED"], list.pools.iter().map(row))
    })
}

fn row(pool: &PoolView) -> [String; 6] {
    let percent = |used: f64| format!("{:.1} %", used * 100.0);
    [
        pool.name.clone(),
        pool.prefixes.join(", "),
        pool.allotted.len().to_string(),
        pool.resting.len().to_string(),
        percent(pool.used_ipv4),
        percent(pool.used_ipv6),
    ]
}

pub(super) async fn gc(client: &Client, output: Output, dry_run: bool) -> Result<(), Failure> {
    let method = if dry_run { Method::GET } else { Method::POST };
    let answer = client.ask(method, "/v1/gc", None, None).await?;
    output.show(&answer.body, describe)
}

fn describe(orphans: &Orphans) -> String {
    let Some(left) = &orphans.left else {
        return format!("{}\n{}", count(orphans.found.len(), "orphan"), orphans.found.join("\n"));
    };
    let gone: Vec<&str> =
        orphans.found.iter().filter(|found| !left.contains(found)).map(String::as_str).collect();
    let mut text = format!("{} removed\n{}", count(gone.len(), "orphan"), gone.join("\n"));
    text.push_str(&section("still there", &left.join("\n")));
    text
}

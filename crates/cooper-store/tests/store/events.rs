//! The outbox: events are written with what they tell, in order.

use cooper_engine::run::RunEvent;
use sqlx::Row;

use crate::fixture::{Fixture, principal};

#[tokio::test]
async fn a_run_tells_its_beginning_and_its_end() {
    let fixture = Fixture::new().await;
    let run = fixture.accept().await.run.id;
    fixture.apply(run, RunEvent::CancelRequested { by: principal("alice") }).await.unwrap();
    let rows = sqlx::query("SELECT kind, payload FROM events ORDER BY seq").fetch_all(fixture.store.readers()).await;
    let events: Vec<(String, serde_json::Value)> =
        rows.unwrap().iter().map(|row| (row.get("kind"), serde_json::from_str(row.get("payload")).unwrap())).collect();
    let expect = [
        ("run.accepted".to_owned(), serde_json::json!({ "run": "ca1" })),
        ("run.finished".to_owned(), serde_json::json!({ "run": "ca1", "status": "Canceled" })),
    ];
    assert_eq!(events, expect);
}

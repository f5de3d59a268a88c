//! The outbox: events are written with what they tell, in order.

use cooper_engine::run::RunEvent;
use cooper_ports::store_error::StoreError;
use sqlx::Row;

use crate::fixture::{Fixture, principal};

#[tokio::test]
async fn a_run_tells_its_end() {
    let fixture = Fixture::new().await;
    let run = fixture.accept().await.run.id;
    fixture.apply(run, RunEvent::CancelRequested { by: principal("alice") }).await.unwrap();
    let rows = sqlx::query("SELECT kind, payload FROM events ORDER BY seq").fetch_all(fixture.store.readers()).await;
    let events: Vec<(String, serde_json::Value)> =
        rows.unwrap().iter().map(|row| (row.get("kind"), serde_json::from_str(row.get("payload")).unwrap())).collect();
    let expect = [("run.finished".to_owned(), serde_json::json!({ "run": "ca1", "status": "Canceled" }))];
    assert_eq!(events, expect);
}

#[tokio::test]
async fn old_events_make_room_for_new_ones() {
    let fixture = Fixture::new().await;
    let filled = fixture.store.write(async move |mut tx| {
        sqlx::query(
            "WITH RECURSIVE n (seq) AS (SELECT 1 UNION ALL SELECT seq + 1 FROM n WHERE seq < 101119)
             INSERT INTO events (seq, registry_id, kind, payload, created) SELECT seq, 1, 'old', '{}', 0 FROM n",
        )
        .execute(&mut *tx)
        .await
        .map(drop)
        .map_err(|error| StoreError::database("fill", error))
    });
    filled.await.unwrap();
    let run = fixture.accept().await.run.id;
    fixture.apply(run, RunEvent::CancelRequested { by: principal("alice") }).await.unwrap();
    assert_eq!(fixture.count("SELECT count(*) FROM events").await, 100_000);
    assert_eq!(fixture.count("SELECT min(seq) FROM events").await, 1121);
    assert_eq!(fixture.count("SELECT count(*) FROM events WHERE kind = 'run.finished'").await, 1);
}

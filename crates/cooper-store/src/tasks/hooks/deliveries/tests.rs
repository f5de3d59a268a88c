//! That what is asked often is found by an index, however much there is.

use cooper_types::RegistryName;
use sqlx::Row;

use super::super::{KNOWN, OF_EVENTS, prune};
use super::{LIST, NEXT, WAITING};
use crate::{Store, StoreOptions};

#[tokio::test]
async fn nothing_is_found_by_a_walk_through_what_waits_or_is_over() {
    let directory = tempfile::tempdir().unwrap();
    let registry_name = RegistryName::parse("localhost:5000").unwrap();
    let store = Store::open(directory.path(), StoreOptions { registry_name, clock: None }).await.unwrap();
    for (sql, expect) in [
        (WAITING, "SEARCH d USING COVERING INDEX deliveries_by_turn (registry_id=? AND waits=? AND hook>?)"),
        (NEXT, "SEARCH w USING COVERING INDEX deliveries_by_turn (registry_id=? AND waits=? AND hook=? AND number>?)"),
        (NEXT, "SEARCH o USING COVERING INDEX hooks_by_task (registry_id=? AND task=? AND gone=?)"),
        (NEXT, "SEARCH t USING INDEX sqlite_autoindex_tasks_1 (registry_id=? AND task=?)"),
        (KNOWN, "SEARCH s USING PRIMARY KEY (registry_id=? AND task=? AND event=?)"),
        (OF_EVENTS, "SEARCH s USING PRIMARY KEY (registry_id=? AND task=? AND event>? AND event<?)"),
        (OF_EVENTS, "SEARCH r USING COVERING INDEX runs_unfinished_of_task (registry_id=? AND task=? AND number=?"),
        (LIST, "SEARCH h USING COVERING INDEX hooks_by_task (registry_id=? AND task=? AND gone=?)"),
        (LIST, "SEARCH d USING COVERING INDEX deliveries_by_hook (registry_id=? AND hook=?)"),
        (prune::CUTS, "SEARCH d USING COVERING INDEX deliveries_by_turn (registry_id=? AND waits=? AND hook=?)"),
        (
            prune::CUT_OFF,
            "SEARCH deliveries USING COVERING INDEX deliveries_by_turn (registry_id=? AND waits=? AND hook=? AND number<?)",
        ),
        (
            prune::OLD,
            "SEARCH deliveries USING COVERING INDEX deliveries_by_age (registry_id=? AND waits=? AND received<?)",
        ),
        (prune::GONE, "SEARCH h USING COVERING INDEX hooks_gone (registry_id=?)"),
        (prune::GONE, "SEARCH d USING COVERING INDEX deliveries_by_hook (registry_id=? AND hook=?)"),
        (prune::EVENTS, "SEARCH source_events USING INDEX source_events_by_end (registry_id=? AND forgotten<?)"),
        (prune::ORDERS, "SEARCH r USING COVERING INDEX runs_unfinished_of_task (registry_id=? AND task=? AND number<?"),
    ] {
        let explain = sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {sql}"));
        let rows = sqlx::query(explain).fetch_all(store.readers()).await.unwrap();
        let plan: Vec<String> = rows.iter().map(|row| row.get("detail")).collect();
        assert!(plan.iter().any(|step| step.contains(expect)), "{expect}: {plan:#?}");
        assert!(
            !plan.iter().any(|step| step.starts_with("SCAN deliveries") || step.starts_with("SCAN runs")),
            "{plan:#?}"
        );
    }
}

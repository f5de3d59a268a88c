//! Pools and agents as an administrator sees them: listed, drained, removed; a run goes to its pool alone.

use std::time::Duration;

use cooper_e2e::{Context, TestServer, wait_until};

#[test]
fn a_run_waits_for_an_agent_of_its_pool_that_takes_work() {
    let server = TestServer::start();
    let agent = || server.cooper(&["agent", "show", "local", "--output", "json"]).ok().json();
    wait_until("the local agent is connected", Duration::from_secs(30), || {
        let listed = server.cooper(&["agent", "list", "--output", "json"]).ok().json();
        listed[0]["state"] == "connected"
    });
    let shown = agent();
    assert_eq!(
        (&shown["name"], &shown["pool"], &shown["draining"]),
        (&"local".into(), &"default".into(), &false.into())
    );
    let text = server.cooper(&["agent", "list"]).ok().stdout;
    assert!(text.starts_with("NAME") && text.contains("local") && text.contains("linux/"), "{text}");

    // Drained, it is offered nothing, and the run says so.
    server.cooper(&["agent", "drain", "local"]).ok();
    let context = Context::new("FROM scratch\nCOPY Dockerfile /\n");
    let folder = context.display();
    let queue = |flags: &[&str]| {
        let flags = [&["build", "--no-push", "--no-wait", "--output", "json"], flags, &[folder.as_str()]].concat();
        server.cooper(&flags)
    };
    let id = queue(&[]).ok().json()["runId"].as_str().unwrap().to_owned();
    let pending = |id: &str| server.run(id)["pendingReason"].as_str().unwrap_or_default().to_owned();
    wait_until("the run says what it waits for", Duration::from_secs(20), || {
        pending(&id).contains("being drained (local)")
    });
    server.cooper(&["agent", "drain", "local", "--undo"]).ok();
    wait_until("the run ends", Duration::from_secs(60), || server.run(&id)["status"] == "Succeeded");

    // A pool without agents.
    queue(&["--agent-pool", "gpu"]).expect(5).error_names(&["`gpu`", "cooper pool list"]);
    let token = || server.cooper(&["token", "create", "cards", "--scope", "agent:gpu"]);
    let homeless = token().expect(5);
    homeless.error_names(&["agent pool `gpu` does not exist"]);
    assert!(homeless.stderr.contains("cooper pool create gpu"), "{homeless}");
    server.cooper(&["pool", "create", "gpu", "--description", "with cards"]).ok();
    let elsewhere = queue(&["--agent-pool", "gpu"]).ok().json()["runId"].as_str().unwrap().to_owned();
    assert_eq!(server.run(&elsewhere)["agentPoolName"], "gpu");
    wait_until("the run says that its pool is empty", Duration::from_secs(20), || {
        pending(&elsewhere).contains("no agent of pool gpu")
    });
    token().ok();
    let in_use = server.cooper(&["pool", "delete", "gpu"]).expect(5);
    in_use.error_names(&["`gpu`", "1 unfinished runs"]);
    assert!(in_use.stderr.contains("cooper pool delete NAME --force"), "{in_use}");
    server.cooper(&["pool", "delete", "default", "--force"]).expect(5).error_names(&["default pool"]);
    server.cooper(&["pool", "delete", "gpu", "--force"]).ok();
    assert_eq!(server.run(&elsewhere)["status"], "Canceled");
    let pools = server.cooper(&["pool", "list", "--output", "json"]).ok().json();
    assert_eq!(pools.as_array().unwrap().len(), 1, "{pools}");

    // Removed, it comes back by itself, because its token still works; nothing else goes by its name.
    let removed = server.cooper(&["agent", "remove", "local"]).ok().stderr;
    assert!(removed.contains("comes back by itself") && removed.contains("cooper token revoke"), "{removed}");
    server.cooper(&["agent", "remove", "nobody"]).expect(5).error_names(&["`nobody`"]);
    wait_until("the local agent is back", Duration::from_secs(30), || {
        let back = server.cooper(&["agent", "list", "--output", "json"]).ok().json();
        back[0]["state"] == "connected"
    });
}

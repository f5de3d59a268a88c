//! A full disk is an answer, not a crash: nothing that was accepted is harmed.

use std::time::Duration;

use cooper_e2e::{Context, ServerOptions, TestServer, wait_until};

pub(crate) use cooper_e2e::SmallDisk;

#[test]
fn an_upload_that_does_not_fit_is_refused_and_the_server_stays_up() {
    let disk = SmallDisk::mount(48);
    let server = TestServer::with(ServerOptions { data: Some(disk.data()), ..Default::default() });
    let base = server.base_image();

    // Bytes that don't compress, from a generator that everybody knows.
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    })
    .take(64 * 1024 * 1024 / 8)
    .flatten()
    .collect();
    let large = Context::new(&format!("FROM {base}\nCOPY noise /\n")).file("noise", noise);
    let refused = server.cooper(&["build", "-t", "large:1", &large.display()]).expect(5);
    refused.error_names(&["no space", "context"]);
    drop(large);

    assert_eq!(server.get("/healthz").status, 200);
    // What was refused has left no bytes behind, and what fits still works.
    let small = Context::new(&format!("FROM {base}\nRUN echo it-still-works\n"));
    let run = server.build(&["-t", "small:1"], &small);
    assert_eq!(run["status"], "Succeeded");
}

#[test]
fn a_push_that_does_not_fit_is_a_loss_and_the_server_stays_up() {
    let disk = SmallDisk::mount(48);
    let server = TestServer::with(ServerOptions { data: Some(disk.data()), ..Default::default() });
    let base = server.base_image();
    // The context is small, and the image is not. The engine tries a push again for a minute before it gives up, and the agent
    // has it try three times.
    let large = Context::new(&format!("FROM {base}\nRUN head -c 67108864 /dev/urandom > /noise\n"));
    let queued = server.cooper(&["build", "--no-wait", "-t", "large:1", &large.display()]).expect(0);
    let id = queued.stdout.trim().to_owned();
    let log = || server.cooper(&["logs", &id]).stdout;
    wait_until("the loss is in the log", Duration::from_secs(300), || log().contains("loss 1 of 3"));
    assert!(log().contains("lost the run (push failed: "), "{}", log());
    assert_eq!(server.run(&id)["status"], "Running", "a full disk of ours is no failed build");
    server.cooper(&["runs", "cancel", &id]).expect(0);
    wait_until("the run ends", Duration::from_secs(30), || server.run(&id)["status"] == "Canceled");

    assert_eq!(server.get("/readyz").status, 200);
    let run = server.build(&["-t", "small:1"], &Context::new(&format!("FROM {base}\nRUN echo it-still-works\n")));
    assert_eq!(run["status"], "Succeeded");
}

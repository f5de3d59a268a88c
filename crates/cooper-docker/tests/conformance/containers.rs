//! The suite's part about containers of steps, their placements, and pulls.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cooper_ports::engine::scripted::{Gate, ScriptedContainer, ScriptedPull, ScriptedPush};
use cooper_ports::engine::{
    ArchiveError, ContainerEnd, ContainerError, ContainerEvent, ContainerFailure, ContainerNetwork, ContainerRequest,
    NetworkChoice, NetworkOrigin, NetworkRequest, OutputStream, OwnNetwork, PlacementError, PullError, PullRequest,
    PulledImage, PushedImage, Reaped, VolumeMount,
};
use cooper_types::{Digest, ImageRef, NetworkName};
use futures::{StreamExt as _, TryStreamExt as _};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::bench::{Bench, run_in, script, soon, volume};

fn says(stream: OutputStream, text: &'static str) -> ContainerEvent {
    ContainerEvent::Output { stream, bytes: Bytes::from(text) }
}

/// A script that says `started` and goes on for ever.
fn endless(image: &Digest) -> ContainerRequest {
    script(image, "echo started; exec busybox sleep 3600")
}

fn endless_script(gate: &Gate) -> ScriptedContainer {
    ScriptedContainer::exiting(0).saying(vec![says(OutputStream::Stdout, "started\n")]).waiting_at(gate)
}

async fn until_it_says(events: &mut mpsc::Receiver<ContainerEvent>, text: &str) {
    let said = async {
        while let Some(event) = events.recv().await {
            if matches!(&event, ContainerEvent::Output { bytes, .. } if bytes.starts_with(text.as_bytes())) {
                return;
            }
        }
        panic!("it ended without saying `{text}`");
    };
    soon(text, said).await;
}

pub(crate) async fn a_container_gives_its_output_and_exit_code(bench: Arc<Bench>) {
    let image = bench.shell().await;
    let placement = bench.open(bench.placement()).await;
    for (text, code) in [("echo out; echo err >&2; exit 7", 7), ("echo out; echo err >&2", 0)] {
        bench.next_container(|| {
            ScriptedContainer::exiting(code)
                .saying(vec![says(OutputStream::Stdout, "out\n"), says(OutputStream::Stderr, "err\n")])
        });
        let (ended, out, err) = run_in(&*placement, script(&image, text)).await;
        assert!(
            matches!(ended, Ok(ContainerEnd::Exited { code: got, out_of_memory: false }) if got == code),
            "{ended:?}"
        );
        assert_eq!((out.as_str(), err.as_str()), ("out\n", "err\n"));
    }
    // Nobody listens.
    let (sink, events) = mpsc::channel(1);
    drop(events);
    let ended = placement.run(script(&image, "busybox seq 1000"), sink, CancellationToken::new()).await;
    assert!(matches!(ended, Ok(ContainerEnd::Exited { code: 0, .. })), "{ended:?}");
}

pub(crate) async fn an_image_that_is_not_there_is_named(bench: Arc<Bench>) {
    let placement = bench.open(bench.placement()).await;
    let image = Digest::sha256(b"no image has this id");
    let (ended, ..) = run_in(&*placement, script(&image, "true")).await;
    match ended {
        Err(ContainerError::Failed(ContainerFailure::ImageMissing { image: named })) => assert_eq!(named, image),
        other => panic!("{other:?}"),
    }
}

pub(crate) async fn what_the_placement_lacks_is_named(bench: Arc<Bench>) {
    let image = bench.shell().await;
    let mut request = bench.placement();
    request.shared_network = false;
    let placement = bench.open(request).await;
    let mut no_volume = script(&image, "true");
    no_volume.mounts = vec![VolumeMount { volume: volume("other"), path: "/x".into(), read_only: false }];
    let mut no_network = script(&image, "true");
    let on = NetworkChoice::Placement(NetworkName::parse("net").expect("a name"));
    let own = OwnNetwork { on, aliases: Vec::new(), ports: Vec::new(), expose: Vec::new() };
    no_network.network = ContainerNetwork::Own(own);
    let mut no_shared = script(&image, "true");
    no_shared.network = ContainerNetwork::Shared;
    for (request, word) in [(no_volume, "`other`"), (no_network, "`net`"), (no_shared, "shared")] {
        match run_in(&*placement, request).await.0 {
            Err(ContainerError::Failed(ContainerFailure::Invalid { message })) => {
                assert!(message.contains(word), "{message}");
            }
            other => panic!("{other:?}"),
        }
    }
}

pub(crate) async fn a_cancelled_container_ends_without_its_command(bench: Arc<Bench>) {
    let image = bench.shell().await;
    let placement = bench.open(bench.placement()).await;
    let gate = Gate::new();
    bench.next_container(|| endless_script(&gate));
    let (sink, mut events) = mpsc::channel(8);
    let cancel = CancellationToken::new();
    let run = tokio::spawn({
        let (placement, cancel, request) = (placement.clone(), cancel.clone(), endless(&image));
        async move { placement.run(request, sink, cancel).await }
    });
    until_it_says(&mut events, "started").await;
    cancel.cancel();
    let ended = soon("the end of the container", run).await.expect("it does not panic");
    assert!(matches!(ended, Err(ContainerError::Cancelled)), "{ended:?}");
}

pub(crate) async fn a_dropped_container_ends(bench: Arc<Bench>) {
    let image = bench.shell().await;
    let placement = bench.open(bench.placement()).await;
    let gate = Gate::new();
    bench.next_container(|| endless_script(&gate));
    let (sink, mut events) = mpsc::channel(8);
    let run = tokio::spawn({
        let (placement, request) = (placement.clone(), endless(&image));
        async move { placement.run(request, sink, CancellationToken::new()).await }
    });
    until_it_says(&mut events, "started").await;
    run.abort();
    // The sink goes with the container.
    let gone = async { while events.recv().await.is_some() {} };
    soon("the end of the container", gone).await;
}

pub(crate) async fn a_container_that_was_cancelled_before_it_began_does_nothing(bench: Arc<Bench>) {
    let image = bench.shell().await;
    let placement = bench.open(bench.placement()).await;
    let (sink, mut events) = mpsc::channel(8);
    let cancel = CancellationToken::new();
    cancel.cancel();
    let ended = placement.run(endless(&image), sink, cancel).await;
    assert!(matches!(ended, Err(ContainerError::Cancelled)), "{ended:?}");
    assert_eq!(events.recv().await, None);
}

pub(crate) async fn a_detached_container_goes_on_until_its_placement_ends(bench: Arc<Bench>) {
    let image = bench.shell().await;
    let placement = bench.open(bench.placement()).await;
    let gate = Gate::new();
    bench.next_container(|| endless_script(&gate));
    let mut request = endless(&image);
    request.detach = true;
    let (sink, mut events) = mpsc::channel(8);
    let cancel = CancellationToken::new();
    let ended = placement.run(request, sink, cancel.clone()).await;
    assert!(matches!(ended, Ok(ContainerEnd::Detached)), "{ended:?}");
    // Its step is over: what becomes of that is nothing to it.
    cancel.cancel();
    until_it_says(&mut events, "started").await;
    let removed = placement.close().await.expect("it closes");
    assert!(removed.containers >= 1, "{removed:?}");
    let gone = async { while events.recv().await.is_some() {} };
    soon("the end of the container", gone).await;
}

pub(crate) async fn closing_a_placement_ends_what_runs(bench: Arc<Bench>) {
    let image = bench.shell().await;
    let placement = bench.open(bench.placement()).await;
    let gate = Gate::new();
    bench.next_container(|| endless_script(&gate));
    let (sink, mut events) = mpsc::channel(8);
    let run = tokio::spawn({
        let (placement, request) = (placement.clone(), endless(&image));
        async move { placement.run(request, sink, CancellationToken::new()).await }
    });
    until_it_says(&mut events, "started").await;
    placement.close().await.expect("it closes");
    let ended = run.await.expect("it does not panic");
    assert!(matches!(ended, Err(ContainerError::Cancelled)), "{ended:?}");
    let (ended, ..) = run_in(&*placement, endless(&image)).await;
    assert!(matches!(ended, Err(ContainerError::Cancelled)), "{ended:?}");
    assert_eq!(placement.close().await.expect("it is closed"), Reaped::default());
}

/// Path, kind, mode, link's target and content of every entry.
fn entries(archive: &[u8]) -> Vec<String> {
    let mut archive = tar::Archive::new(archive);
    let mut entries: Vec<String> = Vec::new();
    for entry in archive.entries().expect("an archive") {
        let mut entry = entry.expect("an entry");
        let mut content = String::new();
        std::io::Read::read_to_string(&mut entry, &mut content).expect("text");
        let header = entry.header();
        let path = entry.path().expect("a path").to_string_lossy().trim_matches(['.', '/']).to_owned();
        let link = entry.link_name().expect("a link").map(|link| link.to_string_lossy().into_owned());
        let mode = header.mode().expect("a mode") & 0o7777;
        let (kind, mtime) = (header.entry_type(), header.mtime().expect("a time"));
        let ids = (header.uid().expect("an id"), header.gid().expect("an id"));
        entries.push(format!("{path} {kind:?} {mode:o} {mtime} {ids:?} {link:?} {content}"));
    }
    entries.sort();
    entries
}

fn archive(within: &str) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut add = |kind: tar::EntryType, path: &str, mode: u32, link: &str, content: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_mtime(1_700_000_000);
        header.set_uid(1000);
        header.set_gid(1001);
        header.set_size(content.len() as u64);
        if !link.is_empty() {
            header.set_link_name(link).expect("a link");
        }
        builder.append_data(&mut header, format!("{within}{path}"), content).expect("it is added");
    };
    add(tar::EntryType::Directory, "./", 0o755, "", b"");
    add(tar::EntryType::Directory, "sub/", 0o700, "", b"");
    add(tar::EntryType::Regular, "sub/program", 0o4755, "", b"text\n");
    add(tar::EntryType::Regular, "a ü", 0o640, "", b"");
    add(tar::EntryType::Symlink, "link", 0o777, "sub/program", b"");
    // A source may be a part of something larger, into which its links lead.
    add(tar::EntryType::Symlink, "sub/up", 0o777, "../../../outside", b"");
    add(tar::EntryType::Symlink, "away", 0o777, "/sub/../../etc", b"");
    builder.into_inner().expect("it is whole")
}

pub(crate) async fn an_archive_comes_back_as_it_was(bench: Arc<Bench>) {
    let placement = bench.open(bench.placement()).await;
    let sent = |within: &str| {
        // In small parts, as a network gives them.
        let parts: Vec<_> = archive(within).chunks(700).map(|part| Ok(Bytes::copy_from_slice(part))).collect();
        futures::stream::iter(parts).boxed()
    };
    placement.put_archive(&volume("work"), Box::new(sent)).await.expect("it is unpacked");
    let stream = placement.get_archive(&volume("work"), "").await.expect("it is there");
    let back: Vec<Bytes> = stream.try_collect().await.expect("it is read");
    // The root is there before, and stays as it is.
    let back = entries(&back.concat());
    assert!(back[0].starts_with(" Directory"), "{back:?}");
    assert_eq!(back[1..], entries(&archive(""))[1..]);
}

pub(crate) async fn an_archive_without_a_place_is_refused(bench: Arc<Bench>) {
    let placement = bench.open(bench.placement()).await;
    let stream = |within: &str| futures::stream::iter([Ok(Bytes::from(archive(within)))]).boxed();
    let put = placement.put_archive(&volume("other"), Box::new(stream)).await;
    assert!(matches!(put, Err(ArchiveError::VolumeMissing { .. })), "{put:?}");
    let got = placement.get_archive(&volume("work"), "nowhere").await.map(drop);
    assert!(matches!(got, Err(ArchiveError::FolderMissing { .. })), "{got:?}");
    let broken = |_: &str| {
        futures::stream::iter([Ok(Bytes::from(vec![0; 100])), Err(std::io::Error::other("it broke"))]).boxed()
    };
    let put = placement.put_archive(&volume("work"), Box::new(broken)).await;
    assert!(matches!(&put, Err(ArchiveError::Source { source, .. }) if source.to_string() == "it broke"), "{put:?}");
}

pub(crate) async fn a_placement_that_was_cancelled_leaves_nothing(bench: Arc<Bench>) {
    let cancel = CancellationToken::new();
    cancel.cancel();
    let opened = bench.engine.open_placement(bench.placement(), cancel).await.map(drop);
    assert!(matches!(opened, Err(PlacementError::Cancelled)), "{opened:?}");
    let reaped = bench.engine.reap(&bench.owner).await.expect("it reaps");
    assert_eq!((reaped.containers, reaped.volumes), (0, 0));
}

pub(crate) async fn removing_a_placement_takes_its_things_only(bench: Arc<Bench>) {
    let (mut one, other) = (bench.placement(), bench.placement());
    let origin = NetworkOrigin::Made { driver: None, ipv6: false };
    one.networks = vec![NetworkRequest { name: NetworkName::parse("net").expect("a name"), origin }];
    let (one_scope, other_scope) = (one.scope.clone(), other.scope.clone());
    let (one, other) = (bench.open(one).await, bench.open(other).await);
    let removed = bench.engine.remove_placement(&one_scope).await.expect("it is removed");
    assert_eq!((removed.networks, removed.volumes), (1, 1));
    assert_eq!(bench.engine.remove_placement(&one_scope).await.expect("it is gone"), Reaped::default());
    drop(one);
    assert_eq!(other.close().await.expect("it closes").volumes, 1);
    assert_eq!(bench.engine.remove_placement(&other_scope).await.expect("it is gone"), Reaped::default());
}

pub(crate) async fn reaping_takes_placements(bench: Arc<Bench>) {
    let placement = bench.open(bench.placement()).await;
    assert_eq!(bench.engine.reap(&bench.owner).await.expect("it reaps").volumes, 1);
    assert_eq!(bench.engine.reap(&bench.owner).await.expect("it reaps nothing").volumes, 0);
    drop(placement);
}

fn pull_of(bench: &Bench, name: &str) -> PullRequest {
    let reference = ImageRef::parse(&format!("{}/{name}", bench.registry.address())).expect("a reference");
    let credential = bench.registry.credential();
    PullRequest { reference, credential, platform: None, retries: 0, retry_delay: Duration::ZERO }
}

pub(crate) async fn a_pulled_image_is_there(bench: Arc<Bench>) {
    bench.registry.require_login();
    let image = bench.shell().await;
    let request = pull_of(&bench, "team/tool:1");
    assert_eq!(bench.engine.find_image(&request.reference).await.expect("it looks"), None);
    let digest = Digest::sha256(b"a manifest");
    bench.next_push(|| ScriptedPush::ending(Ok(PushedImage { digest: digest.clone(), size: Some(1) })));
    let pushed = bench.push(image.clone(), &request.reference.to_string()).await.expect("it is pushed");
    bench.next_pull(|| ScriptedPull::ending(Ok(PulledImage { image: image.clone(), digest })));
    let (sink, mut events) = mpsc::channel(64);
    let pulled = bench.engine.pull(request.clone(), sink, CancellationToken::new()).await.expect("it is pulled");
    assert_eq!(pulled, PulledImage { image: image.clone(), digest: pushed.digest });
    while events.recv().await.is_some() {}
    let found = bench.engine.find_image(&request.reference).await.expect("it looks").expect("it is there");
    assert_eq!((found.image, found.platform), (image, Some(bench.engine.describe().native.clone())));
}

pub(crate) async fn a_pull_of_a_missing_image_is_named(bench: Arc<Bench>) {
    let mut request = pull_of(&bench, "no/such:image");
    request.retries = 2;
    bench.next_pull(|| ScriptedPull::ending(Err(PullError::Missing { reference: request.reference.clone() })));
    let (sink, mut events) = mpsc::channel(64);
    match bench.engine.pull(request.clone(), sink, CancellationToken::new()).await {
        Err(PullError::Missing { reference }) => assert_eq!(reference, request.reference),
        other => panic!("{other:?}"),
    }
    let mut again = 0;
    while let Some(event) = events.recv().await {
        again += u32::from(event.status.starts_with("Retrying"));
    }
    // A script has one answer to all tries.
    assert_eq!(again, if bench.is_real() { 2 } else { 0 });
}

pub(crate) async fn a_cancelled_pull_ends_at_once(bench: Arc<Bench>) {
    let mut request = pull_of(&bench, "no/such:image");
    (request.retries, request.retry_delay) = (1, Duration::from_secs(3600));
    let gate = Gate::new();
    let missing = PullError::Missing { reference: request.reference.clone() };
    bench.next_pull(|| ScriptedPull::ending(Err(missing)).waiting_at(&gate));
    let (sink, mut events) = mpsc::channel(64);
    let cancel = CancellationToken::new();
    let pull = tokio::spawn({
        let (bench, cancel) = (bench.clone(), cancel.clone());
        async move { bench.engine.pull(request, sink, cancel).await }
    });
    if bench.is_real() {
        while !events.recv().await.expect("it says that it waits").status.starts_with("Retrying") {}
    } else {
        gate.arrival().await;
    }
    cancel.cancel();
    let pulled = soon("the end of the pull", pull).await.expect("no panic");
    assert!(matches!(pulled, Err(PullError::Cancelled)), "{pulled:?}");
}

//! Where users say that an agent is to go: by its own orders, and with the client that it chooses for them.

use std::cell::Cell;
use std::sync::Arc;

use cooper_api::agent::{
    BuildContextOrder, BuildOrder, PrepareOrder, PushFrom, PushOrder, PushTarget, StepOrder, StepWork,
};
use cooper_e2e::{Follows, Trap};
use cooper_engine::message::StepResult;
use cooper_ports::engine::scripted::ScriptedEngine;
use cooper_source::Names;
use cooper_spec::source::RemoteSource;
use cooper_types::{Digest, Platform, RegistryName, RepositoryName, Tag};

use crate::bench::{Bench, build, key, order};
use crate::server::TestStream;

/// An agent beside a trap, with a placement.
async fn beside(trap: &Trap) -> (Bench, TestStream) {
    let names = Names::new(trap.names());
    let mut bench = Bench::start_with(Arc::new(ScriptedEngine::new()), |settings| settings.names = Some(names));
    let mut stream = bench.stream().await;
    stream.place(key(1)).await;
    (bench, stream)
}

/// What is said of a step that must not succeed.
async fn failure(stream: &mut TestStream, attempt: u64, order: StepOrder) -> String {
    stream.start(key(1), attempt, order).await;
    match stream.result(key(1), attempt).await {
        StepResult::Failed { reason, .. } => reason,
        other => panic!("{other:?}"),
    }
}

/// Goes one way with everything that leads to the inside.
async fn try_orders(way: &str, ordered: impl Fn(&str) -> StepOrder) {
    let trap = Trap::start();
    let (bench, stream) = beside(&trap).await;
    let (stream, attempts) = (tokio::sync::Mutex::new(stream), Cell::new(0));
    let go = async |host: &str| {
        attempts.set(attempts.get() + 1);
        failure(&mut *stream.lock().await, attempts.get(), ordered(host)).await
    };
    trap.try_way(way, Follows::Redirects, "--allow-source", go).await;
    bench.shut_down().await;
}

fn prepare(location: &str) -> StepOrder {
    let prepare = PrepareOrder {
        source: RemoteSource::parse(location).expect("valid"),
        dockerfile: None,
        files: Vec::new(),
        task_file: None,
        task: None,
        definition: None,
        allowed_networks: vec![Trap::OPEN.to_owned()],
        max_bytes: 1 << 20,
    };
    order(StepWork::Prepare(prepare), &[])
}

/// A build whose context is its own alone.
fn build_from(location: String) -> StepOrder {
    let StepOrder { work: StepWork::Build(build), .. } = build() else { panic!("it builds") };
    let context = BuildContextOrder::Remote { source: location, digest: None };
    let allowed_networks = vec![Trap::OPEN.to_owned()];
    order(StepWork::Build(BuildOrder { context, allowed_networks, ..build }), &[])
}

fn publish(host: &str, from: PushFrom) -> StepOrder {
    let target = PushTarget {
        from,
        registry: Some(RegistryName::parse(host).expect("valid")),
        repository: RepositoryName::parse("a/b").expect("valid"),
        staging_tag: Tag::parse("v1").expect("valid"),
    };
    let push = PushOrder { targets: vec![target], allowed_networks: vec![Trap::OPEN.to_owned()] };
    order(StepWork::Push(push), &[])
}

#[tokio::test]
async fn no_source_leads_inside() {
    try_orders("repository", |host| prepare(&format!("http://{host}/app.git#main"))).await;
    try_orders("archive", |host| prepare(&format!("http://{host}/context.tar.gz"))).await;
    try_orders("artifact", |host| prepare(&format!("oci://{host}/a/b:v1"))).await;
}

#[tokio::test]
async fn no_context_of_a_single_step_leads_inside() {
    try_orders("context's repository", |host| build_from(format!("http://{host}/app.git#main"))).await;
    try_orders("context's archive", |host| build_from(format!("http://{host}/context.tar.gz"))).await;
    try_orders("context's artifact", |host| build_from(format!("oci://{host}/a/b:v1"))).await;
}

#[tokio::test]
async fn no_other_registry_leads_inside() {
    let digest = Digest::sha256(b"manifest");
    try_orders("tag", |host| publish(host, PushFrom::Manifest(digest.clone()))).await;
    try_orders("index", |host| publish(host, PushFrom::Index(vec![(Platform::LINUX_AMD64, digest.clone())]))).await;
}

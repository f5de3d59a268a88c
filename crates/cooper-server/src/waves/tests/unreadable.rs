//! A task that can't be read, beside others that stand on the same image.

use std::collections::BTreeMap;

use async_trait::async_trait;
use axum::http::{Request, StatusCode};
use cooper_api::rest::ImpactView;
use cooper_engine::wave::{Dependent, ImageTag};
use cooper_ports::waves::{
    BaseChange, BaseGraph, EndedMember, FollowersCredential, NewRefusal, OpenWave, Refusal, RemoteAnswer, RemoteTag,
    SaveWave, StoredWave, TaskBases, WaveHead, WaveStore, WaveSummary,
};
use cooper_types::{RegistryName, SourceHost, TaskName};
use http_body_util::BodyExt as _;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use super::*;
use crate::api::{ApiState, router};

/// A store that can't read one of its tasks.
struct Torn {
    store: Arc<dyn WaveStore>,
    torn: TaskName,
}

#[async_trait]
impl WaveStore for Torn {
    async fn base_moved(&self) {
        self.store.base_moved().await
    }

    async fn base_graph(&self, images: &[ImageTag]) -> Result<BaseGraph, StoreError> {
        let mut found = self.store.base_graph(images).await?;
        let (torn, sound): (Vec<Dependent>, Vec<Dependent>) =
            found.graph.tasks.into_iter().partition(|task| task.name == self.torn);
        found.graph.tasks = sound;
        let unread = |task: Dependent| (task.name.key(), StoreError::Newer { operation: "read tasks" });
        found.unreadable.extend(torn.into_iter().map(unread));
        Ok(found)
    }

    async fn unbuilt_tasks(&self, limit: u32) -> Result<Vec<TaskName>, StoreError> {
        self.store.unbuilt_tasks(limit).await
    }

    async fn base_changes(&self, limit: u32) -> Result<Vec<BaseChange>, StoreError> {
        self.store.base_changes(limit).await
    }

    async fn known_digest(&self, image: &ImageTag) -> Result<Option<Digest>, StoreError> {
        self.store.known_digest(image).await
    }

    async fn open_wave(&self, open: OpenWave) -> Result<Option<WaveId>, StoreError> {
        self.store.open_wave(open).await
    }

    async fn retry_wave(&self, id: WaveId) -> Result<Option<WaveId>, StoreError> {
        self.store.retry_wave(id).await
    }

    async fn open_waves(&self, agentless: Duration) -> Result<Vec<WaveHead>, StoreError> {
        self.store.open_waves(agentless).await
    }

    async fn waiting_in_wave(&self, id: WaveId) -> Result<Vec<String>, StoreError> {
        self.store.waiting_in_wave(id).await
    }

    async fn find_wave(&self, id: WaveId) -> Result<Option<StoredWave>, StoreError> {
        self.store.find_wave(id).await
    }

    async fn built_since(&self, id: WaveId) -> Result<BTreeMap<String, RunId>, StoreError> {
        self.store.built_since(id).await
    }

    async fn list_waves(&self, limit: u32) -> Result<Vec<WaveSummary>, StoreError> {
        self.store.list_waves(limit).await
    }

    async fn ended_members(&self) -> Result<Vec<EndedMember>, StoreError> {
        self.store.ended_members().await
    }

    async fn save_wave(&self, save: SaveWave) -> Result<bool, StoreError> {
        self.store.save_wave(save).await
    }

    async fn task_bases(&self, task: &TaskName, wave: WaveId) -> Result<TaskBases, StoreError> {
        self.store.task_bases(task, wave).await
    }

    async fn expire_waves(&self, keep: Duration, limit: u32) -> Result<u64, StoreError> {
        self.store.expire_waves(keep, limit).await
    }

    async fn forget_remote_tags(&self, limit: u32) -> Result<u64, StoreError> {
        self.store.forget_remote_tags(limit).await
    }

    async fn due_remote_tags(&self, limit_of_one: u32, without: &[RegistryName]) -> Result<Vec<RemoteTag>, StoreError> {
        self.store.due_remote_tags(limit_of_one, without).await
    }

    async fn remote_answer(&self, image: &ImageTag, answer: RemoteAnswer, next: Timestamp) -> Result<bool, StoreError> {
        self.store.remote_answer(image, answer, next).await
    }

    async fn bring_forward(&self, repository: &RepositoryName, tag: Option<&Tag>) -> Result<u64, StoreError> {
        self.store.bring_forward(repository, tag).await
    }

    async fn followers_credentials(
        &self,
        image: &ImageTag,
        host: &SourceHost,
    ) -> Result<Vec<FollowersCredential>, StoreError> {
        self.store.followers_credentials(image, host).await
    }

    async fn write_refusals(&self, refusals: Vec<NewRefusal>) -> Result<(), StoreError> {
        self.store.write_refusals(refusals).await
    }

    async fn list_refusals(&self, task: &TaskName, limit: u32) -> Result<Vec<Refusal>, StoreError> {
        self.store.list_refusals(task, limit).await
    }
}

#[tokio::test]
async fn a_task_that_can_not_be_read_is_named_and_the_others_are_built() {
    let data = tempfile::tempdir().expect("temp dir");
    let world = World::of(data, async |data, clock| {
        testing::core_of(data, clock, |parts, _| {
            parts.waves = Arc::new(Torn { store: Arc::clone(&parts.waves), torn: name("newer") });
        })
        .await
    })
    .await;
    let one = world.push("1", "one").await;
    for task in ["first", "newer", "other"] {
        world.make(task, follows(true)).await;
        world.run(task, "1", &one).await;
    }
    world.make("not-run", follows(true)).await;
    let token = testing::token(&world.core, "bob", &["read"]).await;
    let router = router(ApiState { core: Arc::clone(&world.core), shutdown: CancellationToken::new() });
    let impact = async |image: &str| -> ImpactView {
        let request = Request::get(format!("/api/v1/impact?image={image}"))
            .header("authorization", format!("Bearer {}", token.expose()))
            .body(axum::body::Body::empty())
            .expect("a request");
        let response = router.clone().oneshot(request).await.expect("infallible");
        assert_eq!(response.status(), StatusCode::OK);
        let bytes = response.into_body().collect().await.expect("a body").to_bytes();
        serde_json::from_slice(&bytes).expect("an impact")
    };
    let told = impact("base:1").await;
    let built: Vec<&str> = told.tasks.iter().map(|task| task.task.as_str()).collect();
    assert_eq!(
        (built, told.unreadable, told.unknown),
        (vec!["first", "other"], vec!["newer".to_owned()], vec![name("not-run")])
    );
    let told = impact("base:2").await;
    assert_eq!((told.tasks.len(), told.unreadable.len()), (0, 0), "it does not stand on that");
    world.push("1", "two").await;
    world.pass().await;
    assert_eq!(world.waves().await, ["w1 running first=running other=running"]);
}

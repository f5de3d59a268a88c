//! Opening waves for tags that have moved.

use std::collections::{BTreeMap, BTreeSet};

use cooper_engine::wave::{self, Apart, Change, ImageTag};
use cooper_ports::failpoint::{self, Failpoint};
use cooper_ports::store_error::StoreError;
use cooper_ports::waves::{BaseChange, BaseGraph, ChangedBy, NewRefusal, OpenWave};
use cooper_types::WaveId;

use super::{AGENTLESS, Waves};
use crate::problem::chain;
use crate::tasks::off_the_loop;

/// Moved tags that are looked at together.
const BATCH: u32 = 1000;

impl Waves {
    /// Opens waves for the tags that have moved: one for all that nobody's run moved, and one for each task or wave that did.
    /// Tells the waves for whose pushes that was not possible: they don't go on before.
    pub(super) async fn open(&mut self) -> Result<BTreeSet<WaveId>, StoreError> {
        let mut unplanned = BTreeSet::new();
        loop {
            let changes = self.core.waves.base_changes(BATCH).await?;
            let mut is_all = changes.len() < BATCH as usize;
            let mut groups: BTreeMap<Option<ChangedBy>, Vec<BaseChange>> = BTreeMap::new();
            for change in changes {
                let by = change.by.clone().filter(|by| by.task.is_some());
                groups.entry(by).or_default().push(change);
            }
            for (by, changes) in groups {
                let (of, images) = (by.as_ref().and_then(|by| by.wave), shown(&changes));
                if let Err(error) = self.open_one(by, changes).await {
                    is_all = true;
                    unplanned.extend(of);
                    tracing::error!(
                        images,
                        error = chain(&error),
                        "no wave can be planned for moved tags; trying again"
                    );
                }
            }
            if is_all {
                return Ok(unplanned);
            }
        }
    }

    async fn open_one(&mut self, by: Option<ChangedBy>, changes: Vec<BaseChange>) -> Result<(), StoreError> {
        let open = self.planned(by, changes).await?;
        let (images, cuts, members) = (shown(&open.changes), open.cuts.len(), open.members.len());
        if let Some(wave) = self.core.waves.open_wave(open).await? {
            failpoint::pass(Failpoint::WaveOpened);
            tracing::info!(wave = %wave, images, members, cuts, "wave opened");
        }
        Ok(())
    }

    /// Plans for changes that have the same cause.
    async fn planned(&mut self, by: Option<ChangedBy>, changes: Vec<BaseChange>) -> Result<OpenWave, StoreError> {
        let apart = self.apart(by).await?;
        let images: Vec<_> = changes.iter().map(|change| change.image.clone()).collect();
        let BaseGraph { graph, unreadable } = self.core.waves.base_graph(&images).await?;
        unread(unreadable);
        let wanted: Vec<Change> =
            changes.iter().map(|change| Change { image: change.image.clone(), to: Some(change.to.clone()) }).collect();
        let (plan, apart) = off_the_loop(move || (wave::plan(&graph, &wanted, &apart), apart)).await;
        let became = |image: &ImageTag| {
            let to = changes.iter().find(|change| change.image == *image).map(|change| change.to.to_string());
            format!("base image {image} became {}", to.unwrap_or_default())
        };
        let refused = plan.refused.iter().filter(|refused| refused.direct).map(|refused| NewRefusal {
            task: refused.task.clone(),
            event: became(&refused.image),
            rule: refused.why(),
        });
        // Those whose turn would have come now. What is cut further on is told when that moves.
        let cut = plan.cuts.iter().filter(|cut| images.contains(&cut.image)).map(|cut| NewRefusal {
            task: cut.task.clone(),
            event: became(&cut.image),
            rule: "a run of its own led to that: tasks that stand on each other are built once each".to_owned(),
        });
        Ok(OpenWave {
            refusals: refused.chain(cut).collect(),
            cuts: plan.cuts,
            members: plan.members,
            origins: apart.origins,
            changes,
        })
    }

    /// Which tasks stand apart from what somebody's pushes set off.
    async fn apart(&mut self, by: Option<ChangedBy>) -> Result<Apart, StoreError> {
        let Some(ChangedBy { task: Some(task), wave }) = by else { return Ok(Apart::default()) };
        let alone = Apart { origins: BTreeSet::from([task.key()]), ..Apart::default() };
        let Some(id) = wave else { return Ok(alone) };
        let heads = self.core.waves.open_waves(AGENTLESS).await?;
        let generation = heads.iter().find(|head| head.id == id).map(|head| head.generation);
        if let Some(known) = self.known.get(&id).filter(|known| Some(known.generation) == generation) {
            let built = self.core.waves.built_since(id).await?;
            return Ok(known.wave.apart(&task, &built));
        }
        let Some(found) = self.core.waves.find_wave(id).await? else { return Ok(alone) };
        let built = self.core.waves.built_since(id).await?;
        Ok(found.wave.apart(&task, &built))
    }
}

/// Says of tasks that can't be read what that means, and gives their keys.
pub(crate) fn unread(tasks: Vec<(String, StoreError)>) -> Vec<String> {
    let told = tasks.into_iter().map(|(task, error)| {
        tracing::error!(task, error = chain(&error), "task can't be read; it is in no wave until its row is mended");
        task
    });
    told.collect()
}

/// The images that changed, for the log.
fn shown(changes: &[BaseChange]) -> String {
    let images: BTreeSet<String> = changes.iter().map(|change| change.image.to_string()).collect();
    images.into_iter().collect::<Vec<_>>().join(" ")
}

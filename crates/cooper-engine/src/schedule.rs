//! Which agent is asked for which placement, and why the others wait. A pure function of a snapshot.
//!
//! It remembers nothing: the shell calls it after every wake-up and periodically, and applies its decisions as events.
//! The database's rows are the queue; this only orders them.

#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use cooper_types::{AgentName, Leave, Platform, PoolName, RunId, Timestamp};

use crate::run::{AgentRef, PendingReason, Phase, Placement, Policy, Run};

/// How many agents a reason names.
const FEW: usize = 8;
/// No leave at all.
static NOTHING: BTreeSet<Leave> = BTreeSet::new();

/// A connected agent, as the server sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentView {
    /// Who.
    pub agent: AgentRef,
    /// The pool that it belongs to.
    pub pool: PoolName,
    /// What it runs without emulation.
    pub native: Vec<Platform>,
    /// What it emulates.
    pub emulated: Vec<Platform>,
    /// How many placements it takes at a time.
    pub slots: u32,
    /// It ends what it holds and takes nothing new.
    pub draining: bool,
    /// It has said that it takes nothing at the moment.
    pub unavailable: bool,
    /// It knows what to do with images that other agents left in a registry for a run. Older ones don't.
    pub takes_images: bool,
    /// What its operator allows.
    pub allows: BTreeSet<Leave>,
}

/// A placement that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WaitingView {
    /// The run.
    pub run: RunId,
    /// Index of the placement.
    pub placement: usize,
    /// The pool whose agents may take it.
    pub pool: PoolName,
    /// What it is for.
    pub platform: Platform,
    /// Whether its steps take images that other placements of the run leave.
    pub takes_images: bool,
    /// What its steps have only where an agent's operator allows it.
    pub leave: BTreeSet<Leave>,
    /// The higher goes first.
    pub priority: i32,
    /// When the run was accepted: the older goes first.
    pub created: Timestamp,
    /// The agent that declined or lost it last: the next one after it is asked.
    pub avoid: Option<AgentName>,
}

/// What to do with a waiting placement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Ask this agent.
    Offer {
        /// The run.
        run: RunId,
        /// Index of the placement.
        placement: usize,
        /// Who.
        agent: AgentRef,
    },
    /// Let it wait.
    Wait {
        /// The run.
        run: RunId,
        /// Index of the placement.
        placement: usize,
        /// Why.
        reason: PendingReason,
    },
}

/// How many slots of each agent are taken, counted from the unfinished runs.
pub fn load<'a>(runs: impl IntoIterator<Item = &'a Run>) -> BTreeMap<AgentRef, u32> {
    let mut load = BTreeMap::new();
    for agent in runs.into_iter().flat_map(Run::slots) {
        *load.entry(agent.clone()).or_default() += 1;
    }
    load
}

/// The placements of unfinished runs that wait and may be offered now.
///
/// A placement that was lost pauses before its next offer, longer each time: what took an engine or a network down is
/// often still there a moment later, and would take all the losses that a run has.
pub fn waiting<'a>(runs: impl IntoIterator<Item = &'a Run>, now: Timestamp, policy: &Policy) -> Vec<WaitingView> {
    let policy = *policy;
    let live = runs.into_iter().filter(|run| run.phase == Phase::Live);
    live.flat_map(move |run| {
        run.placements.iter().enumerate().filter_map(move |(index, placement)| {
            let Placement::Waiting { reason } = placement else { return None };
            if !run.has_work(index) || run.pause_ends(index, &policy).is_some_and(|end| now < end) {
                return None;
            }
            let avoid = match reason {
                PendingReason::Declined { agent, .. }
                | PendingReason::NoAnswer { agent }
                | PendingReason::Lost { agent, .. } => Some(agent.clone()),
                PendingReason::New
                | PendingReason::NoAgent
                | PendingReason::NoAgentInPool { .. }
                | PendingReason::NoAgentForPlatform { .. }
                | PendingReason::AgentsTooOld { .. }
                | PendingReason::TaskBusy { .. }
                | PendingReason::AllDraining { .. }
                | PendingReason::AllBusy { .. } => None,
            };
            Some(WaitingView {
                run: run.id,
                placement: index,
                pool: run.pool.clone(),
                platform: run.plan.placements[index].platform.clone(),
                takes_images: run.plan.takes_images(index),
                leave: run.plan.leave(index),
                priority: run.priority(),
                created: run.created,
                avoid,
            })
        })
    })
    .collect()
}

/// Whose turn is when: the higher priority first, then the older run.
fn turn(view: &WaitingView) -> (Reverse<i32>, Timestamp, RunId, usize) {
    (Reverse(view.priority), view.created, view.run, view.placement)
}

/// What a run counts for that no agent has had yet, such as its task, and how many such runs may be with agents.
pub type Limit = (String, u32);

/// The limits of tasks, while placements are given to agents.
struct Limits<'a, F> {
    of: F,
    begun: &'a BTreeMap<String, u32>,
    admitted: BTreeMap<String, BTreeSet<RunId>>,
}

impl<F: Fn(RunId) -> Option<Limit>> Limits<'_, F> {
    /// The limit that keeps a run from agents.
    fn bars(&self, run: RunId) -> Option<u32> {
        let (key, limit) = (self.of)(run)?;
        let admitted = self.admitted.get(&key);
        if admitted.is_some_and(|admitted| admitted.contains(&run)) {
            return None;
        }
        let taken = self.begun.get(&key).copied().unwrap_or(0) as usize + admitted.map_or(0, BTreeSet::len);
        (taken >= limit as usize).then_some(limit)
    }

    /// A run goes to an agent.
    fn admit(&mut self, run: RunId) {
        if let Some((key, _)) = (self.of)(run) {
            self.admitted.entry(key).or_default().insert(run);
        }
    }
}

/// Decides for every waiting placement, the higher priority first and then the oldest run, among the agents of its pool that are not being drained: native
/// before emulated, then the least loaded for its size. One that an agent just failed to take goes to the next after that
/// agent, whatever the load: each is asked before one is asked again, those that emulate after the native ones, so that some
/// that decline can't keep it from the one that would do.
///
/// Of a task with a limit, no more runs are with agents than that: `limit_of` is nothing for runs without one and for those
/// that an agent has had, which `begun` counts. A run that no agent can take takes no other's place.
///
/// What an operator has to allow is asked of those who do: of no other while one of them is connected, busy or not. Where none
/// does, an agent refuses the step and says what its operator can do, which helps more than to wait.
///
/// The work grows with the number of placements and with that of agents, not with their product.
pub fn schedule(
    mut waiting: Vec<WaitingView>,
    agents: &[AgentView],
    load: &BTreeMap<AgentRef, u32>,
    limit_of: impl Fn(RunId) -> Option<Limit>,
    begun: &BTreeMap<String, u32>,
) -> Vec<Decision> {
    waiting.sort_by_key(turn);
    let mut choice = Choice::new(agents, load);
    let mut limits = Limits { of: limit_of, begun, admitted: BTreeMap::new() };
    let mut decisions = Vec::with_capacity(waiting.len());
    for view in &waiting {
        let (run, placement) = (view.run, view.placement);
        if let Some(limit) = limits.bars(run) {
            decisions.push(Decision::Wait { run, placement, reason: PendingReason::TaskBusy { limit } });
            continue;
        }
        let class = choice.class(view);
        decisions.push(match choice.choose(class, &view.platform, view.avoid.as_ref()) {
            Some(agent) => {
                limits.admit(run);
                Decision::Offer { run, placement, agent }
            }
            None => Decision::Wait { run, placement, reason: choice.explain(class) },
        });
    }
    decisions
}

/// What placements ask of an agent: pool, platform, whether they take images of others, and what has to be allowed.
type Asked<'a> = (&'a PoolName, &'a Platform, bool, &'a BTreeSet<Leave>);

/// The agents, arranged by what is asked of them.
struct Choice<'a> {
    agents: &'a [AgentView],
    /// All that any of them allows.
    allowed: BTreeSet<&'a Leave>,
    /// How many placements each agent holds, offers of this look included.
    held: Vec<u32>,
    classes: Vec<Class>,
    index: BTreeMap<Asked<'a>, usize>,
    /// Where each agent is in the list.
    positions: BTreeMap<&'a AgentName, usize>,
    /// For each agent, the classes that it is a candidate of, and whether it is one by emulation.
    memberships: Vec<Vec<(usize, bool)>>,
}

/// All placements that ask the same.
struct Class {
    native: Candidates,
    emulated: Candidates,
    /// Sums over the agents that can do it and take work.
    slots: u32,
    held: u32,
    /// Placements that are to wait, so far.
    ahead: u32,
    /// Why they do, where it does not depend on the load.
    barred: Option<PendingReason>,
}

/// Agents with a free slot, by their positions.
#[derive(Default)]
struct Candidates {
    /// The least loaded first.
    by_load: BTreeSet<(u64, usize)>,
    in_order: BTreeSet<usize>,
}

impl Candidates {
    fn insert(&mut self, share: u64, index: usize) {
        self.by_load.insert((share, index));
        self.in_order.insert(index);
    }

    fn remove(&mut self, share: u64, index: usize) {
        self.by_load.remove(&(share, index));
        self.in_order.remove(&index);
    }

    /// The least loaded.
    fn best(&self) -> Option<usize> {
        self.by_load.first().map(|(_, index)| *index)
    }

    fn first(&self) -> Option<usize> {
        self.in_order.first().copied()
    }

    fn after(&self, agent: usize) -> Option<usize> {
        self.in_order.range(agent + 1..).next().copied()
    }
}

impl<'a> Choice<'a> {
    fn new(agents: &'a [AgentView], load: &BTreeMap<AgentRef, u32>) -> Self {
        let held = agents.iter().map(|view| load.get(&view.agent).copied().unwrap_or(0)).collect();
        let memberships = vec![Vec::new(); agents.len()];
        let positions = agents.iter().enumerate().map(|(index, view)| (&view.agent.name, index)).collect();
        let allowed = agents.iter().flat_map(|view| &view.allows).collect();
        Self { agents, allowed, held, classes: Vec::new(), index: BTreeMap::new(), positions, memberships }
    }

    /// What of a placement's leave can decide who is asked: what nobody allows is asked of nobody. Users name networks as
    /// they like, and a class for each name would cost as much as all agents.
    fn leave(&self, view: &'a WaitingView) -> &'a BTreeSet<Leave> {
        match view.leave.iter().all(|leave| self.allowed.contains(leave)) {
            true => &view.leave,
            false => &NOTHING,
        }
    }

    /// The class of a placement, made when it is first asked for.
    fn class(&mut self, view: &'a WaitingView) -> usize {
        let WaitingView { pool, platform, takes_images, .. } = view;
        let leave = self.leave(view);
        if let Some(class) = self.index.get(&(pool, platform, *takes_images, leave)) {
            return *class;
        }
        let number = self.classes.len();
        let (native, emulated) = (Candidates::default(), Candidates::default());
        let barred = self.barred(view);
        let mut class = Class { native, emulated, slots: 0, held: 0, ahead: 0, barred };
        let is_one = |agent: &AgentView| agent.pool == *pool && agent.can_do(platform) && agent.knows(*takes_images);
        let is_allowed = self.agents.iter().any(|agent| is_one(agent) && agent.allows.is_superset(leave));
        let able =
            |agent: &AgentView| is_one(agent) && !agent.draining && (!is_allowed || agent.allows.is_superset(leave));
        // Who would decline is asked where there is nobody else, and says why.
        let all_unavailable = !self.agents.iter().any(|agent| able(agent) && !agent.unavailable);
        for (index, agent) in self.agents.iter().enumerate() {
            if !able(agent) || (agent.unavailable && !all_unavailable) {
                continue;
            }
            let emulated = !agent.native.contains(platform);
            class.slots += agent.slots;
            class.held += self.held[index];
            self.memberships[index].push((number, emulated));
            if self.held[index] < agent.slots {
                class.candidates(emulated).insert(share(self.held[index], agent.slots), index);
            }
        }
        self.classes.push(class);
        self.index.insert((pool, platform, *takes_images, leave), number);
        number
    }

    /// Takes a slot of the best agent of a class.
    fn choose(&mut self, class: usize, platform: &Platform, avoid: Option<&AgentName>) -> Option<AgentRef> {
        let class = &self.classes[class];
        let after = avoid.and_then(|name| self.positions.get(name).copied());
        let (native, emulated) = (&class.native, &class.emulated);
        let index = match after {
            None => native.best().or_else(|| emulated.best()),
            // Round and round, first the native ones and then those that emulate: a native one that would decline for ever
            // keeps nobody from an idle one that emulates.
            Some(agent) if self.agents[agent].native.contains(platform) => {
                native.after(agent).or_else(|| emulated.first()).or_else(|| native.first())
            }
            Some(agent) => emulated.after(agent).or_else(|| native.first()).or_else(|| emulated.first()),
        }?;
        let agent = &self.agents[index];
        let before = self.held[index];
        self.held[index] += 1;
        for (class, emulated) in &self.memberships[index] {
            let class = &mut self.classes[*class];
            class.held += 1;
            let candidates = class.candidates(*emulated);
            candidates.remove(share(before, agent.slots), index);
            if before + 1 < agent.slots {
                candidates.insert(share(before + 1, agent.slots), index);
            }
        }
        Some(agent.agent.clone())
    }

    /// Why the next placement of a class waits.
    fn explain(&mut self, class: usize) -> PendingReason {
        let class = &mut self.classes[class];
        if let Some(reason) = &class.barred {
            return reason.clone();
        }
        let ahead = coarse(class.ahead);
        class.ahead += 1;
        PendingReason::AllBusy { held: class.held, slots: class.slots, ahead }
    }

    /// What keeps all agents from a class, whatever their load.
    fn barred(&self, view: &'a WaitingView) -> Option<PendingReason> {
        let WaitingView { pool, platform, takes_images, .. } = view;
        let leave = self.leave(view);
        let own: Vec<&AgentView> = self.agents.iter().filter(|agent| agent.pool == *pool).collect();
        if own.is_empty() {
            return Some(match self.agents.is_empty() && *pool == PoolName::default_pool() {
                true => PendingReason::NoAgent,
                false => PendingReason::NoAgentInPool { pool: pool.clone() },
            });
        }
        let able: Vec<&AgentView> = own.iter().copied().filter(|agent| agent.can_do(platform)).collect();
        if able.is_empty() {
            let available = few(own.iter().map(|agent| describe(agent)));
            return Some(PendingReason::NoAgentForPlatform { platform: platform.to_string(), available });
        }
        let names = |agents: &[&AgentView]| few(agents.iter().map(|agent| agent.agent.to_string()));
        let new: Vec<&AgentView> = able.iter().copied().filter(|agent| agent.knows(*takes_images)).collect();
        if new.is_empty() {
            return Some(PendingReason::AgentsTooOld { agents: names(&able) });
        }
        let allowing: Vec<&AgentView> = new.iter().copied().filter(|agent| agent.allows.is_superset(leave)).collect();
        let asked = if allowing.is_empty() { new } else { allowing };
        let draining = asked.iter().all(|agent| agent.draining);
        draining.then(|| PendingReason::AllDraining { agents: names(&asked) })
    }
}

impl Class {
    fn candidates(&mut self, emulated: bool) -> &mut Candidates {
        if emulated { &mut self.emulated } else { &mut self.native }
    }
}

impl AgentView {
    /// Whether it runs or emulates a platform.
    fn can_do(&self, platform: &Platform) -> bool {
        self.native.contains(platform) || self.emulated.contains(platform)
    }

    /// Whether it knows what to do with others' images, where there are any.
    fn knows(&self, takes_images: bool) -> bool {
        self.takes_images || !takes_images
    }
}

/// Load as a share of the slots, in thousandths, so that it can be compared as a whole number.
fn share(held: u32, slots: u32) -> u64 {
    u64::from(held) * 1000 / u64::from(slots.max(1))
}

/// The first of many: a reason is written into each run that it concerns.
fn few(items: impl ExactSizeIterator<Item = String>) -> Vec<String> {
    let more = items.len().saturating_sub(FEW);
    items.take(FEW).chain((more > 0).then(|| format!("and {more} more"))).collect()
}

/// A number without all digits but its first. Each end of a run moves a whole queue up: an exact number for each of its
/// runs would be a write for each.
fn coarse(number: u32) -> u32 {
    let unit = 10_u32.pow(number.checked_ilog10().unwrap_or(0));
    number / unit * unit
}

fn describe(view: &AgentView) -> String {
    let platforms: Vec<String> = view.native.iter().chain(&view.emulated).map(Platform::to_string).collect();
    format!("{}: {}", view.agent, platforms.join(", "))
}

//! Who takes part in a wave, and in which order.
//!
//! The work grows with the number of tasks and of edges between them. Nothing recurses: chains may be as long as there are
//! tasks.

use std::collections::{BTreeMap, BTreeSet};

use cooper_types::{Digest, TaskName};

use super::{BaseKind, Cut, ImageTag};
use crate::task::BaseImageTrigger;

/// All tasks, with what their last runs stood on and made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Graph {
    /// The tasks.
    pub tasks: Vec<Dependent>,
}

/// A task in the graph.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dependent {
    /// Its name.
    pub name: TaskName,
    /// Whether triggers start it.
    pub enabled: bool,
    /// Which changes of base images do.
    pub trigger: BaseImageTrigger,
    /// What it stands on.
    pub bases: Vec<Base>,
    /// The tags that it makes in the embedded registry.
    pub makes: Vec<ImageTag>,
}

/// What a task stands on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Base {
    /// How it uses it.
    pub kind: BaseKind,
    /// The tag.
    pub image: ImageTag,
    /// What the tag stood for.
    pub digest: Digest,
}

/// A change to be planned for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// What changes.
    pub image: ImageTag,
    /// What it becomes; something that nobody stands on yet if absent.
    pub to: Option<Digest>,
}

/// What a change sets off.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The tasks, each once, after all that it waits for.
    pub members: Vec<PlannedMember>,
    /// Where circles were cut.
    pub cuts: Vec<Cut>,
    /// Tasks that are not started, and why.
    pub refused: Vec<Refused>,
}

/// A task that takes part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedMember {
    /// The task.
    pub task: TaskName,
    /// The longest way to it from what changes, from 0.
    pub level: u32,
    /// The members that it waits for, by their places.
    pub parents: Vec<u32>,
    /// What changes of its bases: by the change itself, or by a member.
    pub images: Vec<ImageTag>,
}

/// A task that stands on what changes and is not started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The task.
    pub task: TaskName,
    /// What it stands on.
    pub image: ImageTag,
    /// Whether that is what changes now; a member makes it otherwise.
    pub direct: bool,
    /// What says no: each would do alone.
    pub rules: BTreeSet<Rule>,
}

/// What keeps a change from starting a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// No trigger starts it.
    TaskDisabled,
    /// No base image does.
    TriggerDisabled,
    /// It follows runtime bases alone.
    RuntimeOnly,
    /// It does not follow the images of its steps.
    NotSteps,
}

impl Refused {
    /// What says no, in words.
    pub fn why(&self) -> String {
        self.rules.iter().map(|rule| rule.as_str()).collect::<Vec<_>>().join("; and ")
    }
}

impl Rule {
    /// In words.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TaskDisabled => "the task is disabled",
            Self::TriggerDisabled => "its base image trigger is disabled",
            Self::RuntimeOnly => "its base image trigger is of type Runtime, and the image is a build-time base of it",
            Self::NotSteps => "its base image trigger does not follow the images of cmd steps",
        }
    }
}

/// An edge from an image to a task that stands on it: the task, and what keeps it from following.
struct Edge<'a> {
    task: usize,
    /// In lists of their own: an edge that is followed has none, and there are many.
    rules: Vec<Rule>,
    digest: &'a Digest,
}

/// Tasks that changes do not set off, by their keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Apart {
    /// Their runs led to the changes, one after the other: whatever leads back to them is cut, and said.
    pub origins: BTreeSet<String>,
    /// Their turn comes anyway, or somebody has said that it does not.
    pub dealt_with: BTreeSet<String>,
}

/// Says what changes set off.
pub fn plan(graph: &Graph, changes: &[Change], apart: &Apart) -> Plan {
    let mut tasks: Vec<&Dependent> = graph.tasks.iter().collect();
    tasks.sort_by_cached_key(|task| task.name.key());
    let part = |task: &&Dependent| match task.name.key() {
        key if apart.origins.contains(&key) => Part::Origin,
        key if apart.dealt_with.contains(&key) => Part::None,
        _ => Part::Member,
    };
    let parts: Vec<Part> = tasks.iter().map(part).collect();
    let mut edges: BTreeMap<&ImageTag, Vec<Edge<'_>>> = BTreeMap::new();
    for (index, task) in tasks.iter().enumerate() {
        for base in &task.bases {
            let edge = Edge { task: index, rules: task.rules(base.kind), digest: &base.digest };
            edges.entry(&base.image).or_default().push(edge);
        }
    }
    let mut plan = Plan::default();
    let mut walk = Walk::new(&tasks, &edges, &parts);
    let mut roots: BTreeMap<usize, BTreeSet<&ImageTag>> = BTreeMap::new();
    for change in changes {
        let moved = |edge: &&Edge<'_>| change.to.as_ref().is_none_or(|to| to != edge.digest);
        let hit: Vec<&Edge<'_>> = edges.get(&change.image).into_iter().flatten().filter(moved).collect();
        for (task, rule) in verdicts(&hit) {
            match rule {
                None if parts[task] == Part::Origin => {
                    let maker = tasks.iter().position(|maker| maker.makes.contains(&change.image));
                    walk.cut(task, &change.image, maker.unwrap_or(task));
                }
                None if parts[task] == Part::None => {}
                None => drop(roots.entry(task).or_default().insert(&change.image)),
                Some(rules) => walk.refused.push((task, &change.image, true, rules)),
            }
        }
    }
    for root in roots.keys() {
        walk.from(*root);
    }
    let Walk { mut order, children, cuts, refused, .. } = walk;
    order.reverse();
    // Each stands after all that it waits for.
    let mut levels = vec![0_u32; tasks.len()];
    let mut parents: Vec<Vec<usize>> = vec![Vec::new(); tasks.len()];
    let mut images: Vec<BTreeSet<&ImageTag>> = vec![BTreeSet::new(); tasks.len()];
    for (task, changed) in roots {
        images[task] = changed;
    }
    for task in &order {
        for (child, image) in &children[*task] {
            levels[*child] = levels[*child].max(levels[*task] + 1);
            // A task may make several of the tags that another one stands on.
            if parents[*child].last() != Some(task) {
                parents[*child].push(*task);
            }
            images[*child].insert(image);
        }
    }
    order.sort_by_key(|task| (levels[*task], *task));
    let mut places = vec![0_u32; tasks.len()];
    for (place, task) in order.iter().enumerate() {
        places[*task] = u32::try_from(place).unwrap_or(u32::MAX);
    }
    for task in order {
        let mut parents: Vec<u32> = parents[task].iter().map(|parent| places[*parent]).collect();
        parents.sort_unstable();
        plan.members.push(PlannedMember {
            task: tasks[task].name.clone(),
            level: levels[task],
            parents,
            images: images[task].iter().map(|image| (*image).clone()).collect(),
        });
    }
    let cut = |(task, image, made_by): (usize, &ImageTag, usize)| Cut {
        task: tasks[task].name.clone(),
        image: image.clone(),
        made_by: tasks[made_by].name.clone(),
    };
    plan.cuts = cuts.into_iter().map(cut).collect();
    plan.cuts.sort();
    plan.cuts.dedup();
    let told = |(task, image, direct, rules): (usize, &ImageTag, bool, BTreeSet<Rule>)| Refused {
        task: tasks[task].name.clone(),
        image: image.clone(),
        direct,
        rules,
    };
    plan.refused = refused.into_iter().map(told).collect();
    plan.refused
        .sort_by(|one, other| (&one.task, &one.image, !one.direct).cmp(&(&other.task, &other.image, !other.direct)));
    plan.refused.dedup_by(|one, other| one.task == other.task && one.image == other.image);
    plan
}

impl Dependent {
    /// What keeps a change of a base from starting it.
    fn rules(&self, kind: BaseKind) -> Vec<Rule> {
        (!self.enabled).then_some(Rule::TaskDisabled).into_iter().chain(self.trigger.rules(kind)).collect()
    }
}

/// Each task of some edges once: started by any of them, or refused by all.
fn verdicts(edges: &[&Edge<'_>]) -> BTreeMap<usize, Option<BTreeSet<Rule>>> {
    let mut verdicts: BTreeMap<usize, Option<BTreeSet<Rule>>> = BTreeMap::new();
    for edge in edges {
        let verdict = verdicts.entry(edge.task).or_insert_with(|| Some(BTreeSet::new()));
        match verdict {
            Some(rules) if !edge.rules.is_empty() => rules.extend(&edge.rules),
            _ => *verdict = None,
        }
    }
    verdicts
}

/// A walk through what depends on what, depth first: a task is done when all that depends on it is, so the reverse of that
/// order is one to build in. What leads back into the way that the walk has come is cut.
struct Walk<'a> {
    tasks: &'a [&'a Dependent],
    edges: &'a BTreeMap<&'a ImageTag, Vec<Edge<'a>>>,
    parts: &'a [Part],
    seen: Vec<Seen>,
    children: Vec<Vec<(usize, &'a ImageTag)>>,
    /// In the order in which they were done.
    order: Vec<usize>,
    cuts: Vec<(usize, &'a ImageTag, usize)>,
    refused: Vec<(usize, &'a ImageTag, bool, BTreeSet<Rule>)>,
}

/// What a task has to do with a plan.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Member,
    Origin,
    None,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Seen {
    Not,
    OnTheWay,
    Done,
}

impl<'a> Walk<'a> {
    fn new(tasks: &'a [&'a Dependent], edges: &'a BTreeMap<&'a ImageTag, Vec<Edge<'a>>>, parts: &'a [Part]) -> Self {
        Self {
            tasks,
            edges,
            parts,
            seen: vec![Seen::Not; tasks.len()],
            children: vec![Vec::new(); tasks.len()],
            order: Vec::new(),
            cuts: Vec::new(),
            refused: Vec::new(),
        }
    }

    fn cut(&mut self, task: usize, image: &'a ImageTag, made_by: usize) {
        self.cuts.push((task, image, made_by));
    }

    fn from(&mut self, root: usize) {
        if self.seen[root] != Seen::Not {
            return;
        }
        // Each task on the way, with what is still to be looked at of it.
        let mut way = vec![(root, self.dependents(root))];
        self.seen[root] = Seen::OnTheWay;
        while let Some((task, left)) = way.last_mut() {
            let task = *task;
            let Some((child, image)) = left.pop() else {
                self.seen[task] = Seen::Done;
                self.order.push(task);
                way.pop();
                continue;
            };
            if self.parts[child] == Part::None {
                continue;
            }
            if self.parts[child] == Part::Origin || self.seen[child] == Seen::OnTheWay {
                self.cut(child, image, task);
                continue;
            }
            self.children[task].push((child, image));
            if self.seen[child] == Seen::Not {
                self.seen[child] = Seen::OnTheWay;
                way.push((child, self.dependents(child)));
            }
        }
    }

    /// What stands on what a task makes, the last one first.
    fn dependents(&mut self, task: usize) -> Vec<(usize, &'a ImageTag)> {
        let mut dependents = Vec::new();
        for image in &self.tasks[task].makes {
            let edges: Vec<&Edge<'_>> = self.edges.get(image).into_iter().flatten().collect();
            for (dependent, rule) in verdicts(&edges) {
                match rule {
                    None => dependents.push((dependent, image)),
                    Some(rules) => self.refused.push((dependent, image, false, rules)),
                }
            }
        }
        dependents.sort_unstable();
        dependents.reverse();
        dependents
    }
}

//! Where each step of a file runs, and which images have to get from one placement to another.
//!
//! A build for several platforms is built in each one's placement. What another placement needs of it goes through a
//! registry: a stage leaves it there. See docs/decisions/0032.

use std::collections::BTreeMap;

use cooper_types::{Access, ImageRef, Platform, Scopes, Tag};

use super::images::OwnImages;
use crate::plan::platform_tag;
use crate::task::{Task, TaskWork};

/// One platform's part of a step of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Node {
    /// Index of the step in the file.
    pub(super) step: usize,
    /// Index of the platform among the step's.
    pub(super) at: usize,
}

/// What a name that is pushed stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Pushed {
    /// An image of the same placement.
    Here(Node),
    /// An image of another one.
    Elsewhere(Node),
    /// An image of several platforms.
    Several(Vec<Node>),
}

/// What a base that the run built stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Base {
    /// An image of the same placement.
    Here(Node),
    /// An image of another one, and the repository that it crosses by.
    Elsewhere(Node, ImageRef),
}

/// What a stage leaves in the embedded registry.
#[derive(Clone, Debug)]
pub(super) struct Staged {
    /// Where.
    pub(super) images: Vec<ImageRef>,
    /// Whether no step that needs it has to succeed.
    pub(super) is_ignored: bool,
}

/// Where steps run, and what they need of each other.
pub(super) struct Crossing<'a> {
    task: &'a Task,
    images: &'a OwnImages<'a>,
    default: &'a Platform,
    /// What the run may do.
    scopes: &'a Scopes,
    /// What each step of the file runs for; a push where what it pushes first is.
    platforms: Vec<Vec<Platform>>,
}

impl<'a> Crossing<'a> {
    pub(super) fn new(task: &'a Task, images: &'a OwnImages<'a>, default: &'a Platform, scopes: &'a Scopes) -> Self {
        let mut platforms: Vec<Vec<Platform>> = Vec::with_capacity(task.steps.len());
        for (index, step) in task.steps.iter().enumerate() {
            let own = match (&step.work, step.platforms.is_empty()) {
                (_, false) => step.platforms.clone(),
                (TaskWork::Push(names), true) => {
                    // Any agent can push: one that has the image needs nobody else.
                    let builder = names.first().and_then(|name| images.builders(index, name).next());
                    let built: &[Platform] = builder.map(|builder| platforms[builder].as_slice()).unwrap_or_default();
                    let place = if built.contains(default) { default } else { built.first().unwrap_or(default) };
                    vec![place.clone()]
                }
                (TaskWork::Build(_) | TaskWork::Cmd(_), true) => vec![default.clone()],
            };
            platforms.push(own);
        }
        Self { task, images, default, scopes, platforms }
    }

    /// The platforms of the run, each once, in the order of their first steps; the run's own if there is no step.
    pub(super) fn placements(&self) -> Vec<Platform> {
        let mut all: Vec<Platform> = Vec::new();
        for platform in self.platforms.iter().flatten() {
            if !all.contains(platform) {
                all.push(platform.clone());
            }
        }
        if all.is_empty() {
            all.push(self.default.clone());
        }
        all
    }

    /// What steps run for that don't say it themselves.
    pub(super) fn default_platform(&self) -> &Platform {
        self.default
    }

    /// What a step of the file runs for.
    pub(super) fn platforms(&self, step: usize) -> &[Platform] {
        &self.platforms[step]
    }

    /// The last build of a name for one platform.
    pub(super) fn built_for(&self, step: usize, image: &ImageRef, platform: &Platform) -> Option<Node> {
        self.images.builders(step, image).find_map(|builder| {
            let at = self.platforms[builder].iter().position(|built| built == platform)?;
            Some(Node { step: builder, at })
        })
    }

    /// What a push step's name stands for; nothing if no step builds it.
    pub(super) fn pushed(&self, step: usize, name: &ImageRef) -> Option<Pushed> {
        let builder = self.images.builders(step, name).next()?;
        let nodes = (0..self.platforms[builder].len()).map(|at| Node { step: builder, at });
        let nodes: Vec<Node> = nodes.collect();
        Some(match nodes.as_slice() {
            [one] if self.platforms[builder] == self.platforms[step] => Pushed::Here(*one),
            [one] => Pushed::Elsewhere(*one),
            _ => Pushed::Several(nodes),
        })
    }

    /// What a name in `FROM` stands for, in a build for one platform. An image that has no name in the embedded registry
    /// that the run may push to is read where its name says: the run's own push may have brought it there, and whether
    /// the Dockerfile uses the name is not known.
    pub(super) fn base(&self, step: usize, name: &ImageRef, platform: &Platform) -> Option<Base> {
        if let Some(node) = self.built_for(step, name, platform) {
            return Some(Base::Here(node));
        }
        let builder = self.images.builders(step, name).next()?;
        let TaskWork::Build(line) = &self.task.steps[builder].work else { return None };
        let may_push = |image: &&ImageRef| self.scopes.repository(&image.repository, Access::Push);
        let ours = line.images.iter().filter(|image| self.images.is_ours(image)).find(may_push)?;
        let at = self.platforms[builder].iter().position(|built| built == self.default).unwrap_or(0);
        Some(Base::Elsewhere(Node { step: builder, at }, untagged(self.images.plain(ours))))
    }

    /// Where a stage leaves what is pushed under a name: in the same repository, beside the tag where the registry has no
    /// staging.
    pub(super) fn staged_at(&self, node: Node, name: &ImageRef) -> ImageRef {
        let image = self.images.plain(name);
        if self.images.is_ours(&image) {
            return untagged(image);
        }
        let tag = image.tag.clone().unwrap_or_else(Tag::latest);
        let tag = platform_tag(&tag, &self.platforms[node.step][node.at]);
        ImageRef { tag: Some(tag), ..image }
    }

    /// The parts of a pushed name that come from stages, if that is how it is pushed.
    pub(super) fn taken(&self, step: usize, name: &ImageRef) -> Vec<Node> {
        match self.pushed(step, name) {
            Some(Pushed::Elsewhere(node)) => vec![node],
            Some(Pushed::Several(nodes)) => nodes,
            Some(Pushed::Here(_)) | None => Vec::new(),
        }
    }

    /// Where each node's image has to be left for others in the embedded registry; nodes that nobody needs elsewhere are
    /// missing. What goes to other registries can be seen there, and is left by the push's own stages.
    pub(super) fn stages(&self) -> BTreeMap<Node, Staged> {
        let mut stages: BTreeMap<Node, Staged> = BTreeMap::new();
        let mut need = |node: Node, image: ImageRef, is_ignored: bool| {
            let staged = stages.entry(node).or_insert_with(|| Staged { images: Vec::new(), is_ignored: true });
            staged.is_ignored &= is_ignored;
            if !staged.images.contains(&image) {
                staged.images.push(image);
            }
        };
        for (index, step) in self.task.steps.iter().enumerate() {
            match &step.work {
                TaskWork::Push(names) => {
                    for name in names.iter().filter(|name| self.images.is_ours(name)) {
                        for node in self.taken(index, name) {
                            need(node, self.staged_at(node, name), step.ignore_errors);
                        }
                    }
                }
                TaskWork::Build(_) => {
                    let known = self.images.known(index);
                    let bases = known.iter().flat_map(|name| {
                        self.platforms[index].iter().filter_map(move |platform| self.base(index, name, platform))
                    });
                    for base in bases {
                        if let Base::Elsewhere(node, image) = base {
                            need(node, image, step.ignore_errors);
                        }
                    }
                }
                TaskWork::Cmd(_) => {}
            }
        }
        stages
    }
}

fn untagged(image: ImageRef) -> ImageRef {
    ImageRef { tag: None, digest: None, ..image }
}

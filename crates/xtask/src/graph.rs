//! The dependency graph, reduced to what the layering rules ask: who reaches whom, in which way.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use cargo_metadata::{DependencyKind, Metadata, PackageId};

/// How one package uses another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Use {
    /// In what is built: a normal or a build dependency.
    Build,
    /// In its tests alone.
    Test,
}

/// Packages by a key that tells two versions apart, with the members of the workspace among them.
#[derive(Default)]
pub(crate) struct Graph {
    packages: BTreeMap<String, Package>,
}

#[derive(Default)]
struct Package {
    name: String,
    member: bool,
    uses: BTreeSet<(Use, String)>,
}

impl Graph {
    /// The graph that cargo resolved, over all targets and features of the workspace.
    pub(crate) fn from_metadata(metadata: &Metadata) -> Self {
        let mut graph = Self::default();
        let key = |id: &PackageId| id.repr.clone();
        for package in &metadata.packages {
            graph.add(&key(&package.id), &package.name, metadata.workspace_members.contains(&package.id));
        }
        for node in metadata.resolve.iter().flat_map(|resolve| &resolve.nodes) {
            for dependency in &node.deps {
                for kind in &dependency.dep_kinds {
                    let kind = if kind.kind == DependencyKind::Development { Use::Test } else { Use::Build };
                    graph.connect(&key(&node.id), &key(&dependency.pkg), kind);
                }
            }
        }
        graph
    }

    /// Adds a package.
    pub(crate) fn add(&mut self, key: &str, name: &str, member: bool) {
        let package = self.packages.entry(key.to_owned()).or_default();
        package.name = name.to_owned();
        package.member = member;
    }

    /// Adds a dependency between two packages.
    pub(crate) fn connect(&mut self, from: &str, to: &str, kind: Use) {
        self.packages.entry(from.to_owned()).or_default().uses.insert((kind, to.to_owned()));
    }

    /// The names of the workspace's members.
    pub(crate) fn members(&self) -> Vec<&str> {
        self.packages.values().filter(|package| package.member).map(|package| package.name.as_str()).collect()
    }

    /// The members that a member depends on, itself left out, and how.
    pub(crate) fn member_uses(&self, member: &str) -> Vec<(Use, &str)> {
        let from = self.packages.values().find(|package| package.member && package.name == member);
        from.into_iter()
            .flat_map(|package| &package.uses)
            .filter_map(|(kind, to)| self.packages.get(to).map(|package| (*kind, package)))
            .filter(|(_, package)| package.member && package.name != member)
            .map(|(kind, package)| (kind, package.name.as_str()))
            .collect()
    }

    /// The shortest way, by names, from a member to a package, over what is built.
    pub(crate) fn way(&self, member: &str, to: &str) -> Option<Vec<&str>> {
        let (start, _) = self.packages.iter().find(|(_, package)| package.member && package.name == member)?;
        let mut came_from: BTreeMap<&str, Option<&str>> = BTreeMap::from([(start.as_str(), None)]);
        let mut queue = VecDeque::from([start.as_str()]);
        while let Some(key) = queue.pop_front() {
            let Some(package) = self.packages.get(key) else { continue };
            if package.name == to {
                let mut way: Vec<&str> = std::iter::successors(Some(key), |key| came_from.get(key).copied().flatten())
                    .filter_map(|key| self.packages.get(key).map(|package| package.name.as_str()))
                    .collect();
                way.reverse();
                return Some(way);
            }
            for (kind, next) in &package.uses {
                if *kind == Use::Build && !came_from.contains_key(next.as_str()) {
                    came_from.insert(next, Some(key));
                    queue.push_back(next);
                }
            }
        }
        None
    }

    /// Takes a dependency away again.
    #[cfg(test)]
    pub(crate) fn disconnect(&mut self, from: &str, to: &str) {
        if let Some(package) = self.packages.get_mut(from) {
            package.uses.retain(|(_, key)| key != to);
        }
    }
}

//! What a token may do: `read`, `run`, `admin`, `agent`, `agent:POOL`, and `repository:NAME:pull,push,delete`.

use std::collections::BTreeSet;
use std::fmt;

use crate::parsed::text_form;
use crate::{PoolName, RepositoryName};

/// One thing to do with a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Access {
    /// Read manifests, blobs and tags.
    Pull,
    /// Write manifests, blobs and tags.
    Push,
    /// Delete manifests, blobs and tags.
    Delete,
}

/// Which repositories a scope is about: one name, all names under a prefix (`team/*`), or all (`*`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RepositoryPattern {
    /// `*`
    All,
    /// `prefix/*`
    Under(RepositoryName),
    /// One repository.
    Named(RepositoryName),
}

/// One scope of a token.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// See runs and their logs.
    Read,
    /// Upload contexts, start and cancel runs; implies `read`.
    Run,
    /// Everything, tokens included.
    Admin,
    /// Serve as an agent, in any pool.
    Agent,
    /// Serve as an agent in this pool.
    AgentOf(PoolName),
    /// Use repositories of the registry.
    Repository(RepositoryPattern, BTreeSet<Access>),
}

/// All scopes of a token.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Scopes(pub Vec<Scope>);

/// Why a text is not a scope.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "scope `{0}` is not read, run, admin, agent, agent:POOL or repository:NAME:ACTIONS, where NAME may be `*` or end in \
     `/*` and ACTIONS is some of pull,push,delete"
)]
pub struct ScopeError(String);

impl Scope {
    /// Parses one scope.
    pub fn parse(text: &str) -> Result<Self, ScopeError> {
        let error = || ScopeError(text.chars().take(160).collect());
        match text {
            "read" => return Ok(Self::Read),
            "run" => return Ok(Self::Run),
            "admin" => return Ok(Self::Admin),
            "agent" => return Ok(Self::Agent),
            _ => {}
        }
        if let Some(pool) = text.strip_prefix("agent:") {
            return PoolName::parse(pool).map(Self::AgentOf).map_err(|_| error());
        }
        let rest = text.strip_prefix("repository:").ok_or_else(error)?;
        let (name, actions) = rest.rsplit_once(':').ok_or_else(error)?;
        let pattern = match name.strip_suffix("/*") {
            _ if name == "*" => RepositoryPattern::All,
            Some(prefix) => RepositoryPattern::Under(RepositoryName::parse(prefix).map_err(|_| error())?),
            None => RepositoryPattern::Named(RepositoryName::parse(name).map_err(|_| error())?),
        };
        let accesses = actions
            .split(',')
            .map(|action| match action {
                "pull" => Ok(Access::Pull),
                "push" => Ok(Access::Push),
                "delete" => Ok(Access::Delete),
                _ => Err(error()),
            })
            .collect::<Result<_, _>>()?;
        Ok(Self::Repository(pattern, accesses))
    }
}

impl RepositoryPattern {
    /// What both patterns cover.
    fn within(&self, other: &Self) -> Option<Self> {
        match (self, other) {
            (Self::All, pattern) | (pattern, Self::All) => Some(pattern.clone()),
            (Self::Named(name), pattern) | (pattern, Self::Named(name)) => {
                pattern.covers(name).then(|| Self::Named(name.clone()))
            }
            (Self::Under(one), Self::Under(two)) if one == two || self.covers(two) => Some(other.clone()),
            (Self::Under(one), Self::Under(_)) if other.covers(one) => Some(self.clone()),
            (Self::Under(_), Self::Under(_)) => None,
        }
    }

    /// Whether the pattern covers `repository`.
    pub fn covers(&self, repository: &RepositoryName) -> bool {
        match self {
            Self::All => true,
            Self::Named(name) => name == repository,
            Self::Under(prefix) => {
                repository.as_str().strip_prefix(prefix.as_str()).is_some_and(|rest| rest.starts_with('/'))
            }
        }
    }

    /// Whether the pattern covers every repository that `other` covers.
    fn covers_all_of(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::All, _) => true,
            (_, Self::Named(name)) => self.covers(name),
            (Self::Under(own), Self::Under(prefix)) => own == prefix || self.covers(prefix),
            (Self::Under(_) | Self::Named(_), Self::All) | (Self::Named(_), Self::Under(_)) => false,
        }
    }
}

impl Scope {
    /// What both scopes allow, if there is anything.
    fn within(&self, other: &Self) -> Option<Self> {
        match (self, other) {
            (Self::Admin, Self::Agent | Self::AgentOf(_)) | (Self::Agent | Self::AgentOf(_), Self::Admin) => None,
            (Self::Admin, scope) | (scope, Self::Admin) => Some(scope.clone()),
            (Self::Read, Self::Read | Self::Run) | (Self::Run, Self::Read) => Some(Self::Read),
            (Self::Run, Self::Run) => Some(Self::Run),
            (Self::Agent, scope @ (Self::Agent | Self::AgentOf(_))) | (scope @ Self::AgentOf(_), Self::Agent) => {
                Some(scope.clone())
            }
            (Self::AgentOf(one), Self::AgentOf(two)) => (one == two).then(|| self.clone()),
            (Self::Repository(one, some), Self::Repository(two, others)) => {
                let both: BTreeSet<Access> = some.intersection(others).copied().collect();
                let pattern = one.within(two)?;
                (!both.is_empty()).then_some(Self::Repository(pattern, both))
            }
            (Self::Read | Self::Run | Self::Agent | Self::AgentOf(_) | Self::Repository(..), _) => None,
        }
    }
}

impl Scopes {
    /// What both allow.
    #[must_use]
    pub fn within(&self, limit: &Self) -> Self {
        let mut both: Vec<Scope> = Vec::new();
        for scope in self.0.iter().flat_map(|one| limit.0.iter().filter_map(|two| one.within(two))) {
            if !both.contains(&scope) {
                both.push(scope);
            }
        }
        Self(both)
    }

    /// Whether one of the scopes is `admin`.
    pub fn admin(&self) -> bool {
        self.0.contains(&Scope::Admin)
    }

    /// Whether runs and logs may be read.
    pub fn read(&self) -> bool {
        self.admin() || self.0.iter().any(|scope| matches!(scope, Scope::Read | Scope::Run))
    }

    /// Whether runs may be started and cancelled.
    pub fn run(&self) -> bool {
        self.admin() || self.0.contains(&Scope::Run)
    }

    /// Whether the holder may serve as an agent somewhere. An administrator is not an agent: agents receive secrets.
    pub fn agent(&self) -> bool {
        self.0.iter().any(|scope| matches!(scope, Scope::Agent | Scope::AgentOf(_)))
    }

    /// Whether the holder may serve as an agent of `pool`.
    pub fn agent_of(&self, pool: &PoolName) -> bool {
        self.0.iter().any(|scope| match scope {
            Scope::Agent => true,
            Scope::AgentOf(own) => own == pool,
            Scope::Read | Scope::Run | Scope::Admin | Scope::Repository(..) => false,
        })
    }

    /// Whether `access` to `repository` is allowed.
    pub fn repository(&self, repository: &RepositoryName, access: Access) -> bool {
        self.admin()
            || self.0.iter().any(|scope| match scope {
                Scope::Repository(pattern, accesses) => pattern.covers(repository) && accesses.contains(&access),
                Scope::Read | Scope::Run | Scope::Admin | Scope::Agent | Scope::AgentOf(_) => false,
            })
    }

    /// The repositories to which `access` is allowed.
    pub fn repositories(&self, access: Access) -> Vec<RepositoryPattern> {
        if self.admin() {
            return vec![RepositoryPattern::All];
        }
        let pattern = |scope: &Scope| match scope {
            Scope::Repository(pattern, accesses) => accesses.contains(&access).then(|| pattern.clone()),
            Scope::Read | Scope::Run | Scope::Admin | Scope::Agent | Scope::AgentOf(_) => None,
        };
        self.0.iter().filter_map(pattern).collect()
    }

    /// The first of other scopes that these don't cover; none if whatever the others allow is allowed here.
    pub fn first_missing<'a>(&self, others: &'a Self) -> Option<&'a Scope> {
        others.0.iter().find(|other| !self.covers(other))
    }

    fn covers(&self, other: &Scope) -> bool {
        match other {
            Scope::Read => self.read(),
            Scope::Run => self.run(),
            Scope::Admin => self.admin(),
            Scope::Agent => self.0.contains(other),
            Scope::AgentOf(pool) => self.agent_of(pool),
            Scope::Repository(pattern, accesses) => accesses.iter().all(|access| {
                // One scope has to cover the whole pattern: two that do so together are seen as if they did not.
                self.admin()
                    || self.0.iter().any(|scope| match scope {
                        Scope::Repository(own, allowed) => own.covers_all_of(pattern) && allowed.contains(access),
                        Scope::Read | Scope::Run | Scope::Admin | Scope::Agent | Scope::AgentOf(_) => false,
                    })
            }),
        }
    }
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pull => "pull",
            Self::Push => "push",
            Self::Delete => "delete",
        })
    }
}

impl fmt::Display for RepositoryPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("*"),
            Self::Under(prefix) => write!(f, "{prefix}/*"),
            Self::Named(name) => write!(f, "{name}"),
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read => f.write_str("read"),
            Self::Run => f.write_str("run"),
            Self::Admin => f.write_str("admin"),
            Self::Agent => f.write_str("agent"),
            Self::AgentOf(pool) => write!(f, "agent:{pool}"),
            Self::Repository(pattern, accesses) => {
                let actions: Vec<String> = accesses.iter().map(Access::to_string).collect();
                write!(f, "repository:{pattern}:{}", actions.join(","))
            }
        }
    }
}

text_form!(Scope, ScopeError);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_form_round_trips() {
        for text in
            ["read", "run", "admin", "agent", "agent:gpu", "repository:*:pull", "repository:team/*:pull,push,delete"]
        {
            assert_eq!(Scope::parse(text).expect(text).to_string(), text);
        }
        for text in [
            "",
            "root",
            "repository:a",
            "repository::pull",
            "repository:a:",
            "repository:a:write",
            "Read",
            "agent:",
            "agent:a b",
        ] {
            assert!(Scope::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_prefix_covers_whole_parts_only() {
        let scopes = Scopes(vec![Scope::parse("repository:team/*:pull").expect("valid")]);
        let may = |name: &str, access| scopes.repository(&RepositoryName::parse(name).expect("valid"), access);
        assert!(may("team/app", Access::Pull));
        assert!(!may("team/app", Access::Push));
        assert!(!may("team", Access::Pull));
        assert!(!may("teams/app", Access::Pull));
        assert!(!scopes.read() && !scopes.run() && !scopes.admin());
    }

    #[test]
    fn scopes_cover_what_allows_no_more() {
        let scopes = |text: &str| Scopes(text.split_whitespace().map(|one| Scope::parse(one).expect(one)).collect());
        for (own, other, missing) in [
            ("", "", None),
            ("run", "read run", None),
            ("read", "read run", Some("run")),
            ("admin", "run repository:*:pull,push,delete", None),
            ("run", "admin", Some("admin")),
            ("admin", "agent", Some("agent")),
            ("agent", "agent:gpu", None),
            ("agent:gpu", "agent", Some("agent")),
            ("repository:*:pull,push", "repository:team/*:push repository:a:pull", None),
            (
                "repository:team/*:pull",
                "repository:team/app:pull repository:team/a/*:pull repository:team/*:pull",
                None,
            ),
            ("repository:team/*:pull", "repository:team:pull", Some("repository:team:pull")),
            ("repository:team/*:pull", "repository:teams/*:pull", Some("repository:teams/*:pull")),
            ("repository:team/a/*:pull", "repository:team/*:pull", Some("repository:team/*:pull")),
            ("repository:a:pull", "repository:*:pull", Some("repository:*:pull")),
            ("repository:a:pull repository:a:push", "repository:a:pull,push", None),
            ("repository:a:pull", "repository:a:pull,push", Some("repository:a:pull,push")),
        ] {
            let others = scopes(other);
            let found = scopes(own).first_missing(&others).map(ToString::to_string);
            assert_eq!(found.as_deref(), missing, "{own} | {other}");
        }
    }

    #[test]
    fn what_two_sets_of_scopes_have_in_common() {
        let scopes = |texts: &[&str]| Scopes(texts.iter().map(|text| Scope::parse(text).expect(text)).collect());
        let sets: [&[&str]; 9] = [
            &["admin"],
            &["run"],
            &["read"],
            &["agent"],
            &["agent:gpu"],
            &["run", "repository:*:pull", "repository:team/*:push"],
            &["repository:team/*:pull,push", "repository:team/a/*:delete"],
            &["repository:team/a/b:pull,push,delete", "read"],
            &[],
        ];
        let names = ["team", "team/x", "team/a/b", "other"].map(|name| RepositoryName::parse(name).expect("valid"));
        let gpu = PoolName::parse("gpu").expect("valid");
        for (one, two) in sets.iter().flat_map(|one| sets.iter().map(move |two| (scopes(one), scopes(two)))) {
            let both = one.within(&two);
            assert_eq!(both.admin(), one.admin() && two.admin(), "{one:?} {two:?}");
            assert_eq!(both.run(), one.run() && two.run(), "{one:?} {two:?}");
            assert_eq!(both.read(), one.read() && two.read(), "{one:?} {two:?}");
            assert_eq!(both.agent_of(&gpu), one.agent_of(&gpu) && two.agent_of(&gpu), "{one:?} {two:?}");
            for (name, access) in
                names.iter().flat_map(|name| [Access::Pull, Access::Push, Access::Delete].map(|access| (name, access)))
            {
                let expect = one.repository(name, access) && two.repository(name, access);
                assert_eq!(both.repository(name, access), expect, "{one:?} {two:?} {name} {access}");
            }
        }
    }

    #[test]
    fn an_administrator_is_not_an_agent() {
        let scopes = Scopes(vec![Scope::Admin]);
        assert!(scopes.read() && scopes.run() && !scopes.agent());
        assert!(!scopes.agent_of(&PoolName::default_pool()));
    }

    #[test]
    fn an_agent_of_a_pool_serves_no_other() {
        let (gpu, other) = (PoolName::parse("gpu").expect("valid"), PoolName::default_pool());
        let own = Scopes(vec![Scope::AgentOf(gpu.clone())]);
        assert!(own.agent() && own.agent_of(&gpu) && !own.agent_of(&other));
        let any = Scopes(vec![Scope::Agent]);
        assert!(any.agent() && any.agent_of(&gpu) && any.agent_of(&other));
    }
}

//! The server, as a client meets it: reachable, its version, the token, its clock, its registry's name.

use std::time::{SystemTime, UNIX_EPOCH};

use cooper_client::{Client, ClientError, ServerUrl, Trust};
use cooper_types::{RegistryName, Scope};

use super::check::Check;
use crate::connection::{Connection, ServerArgs};
use crate::credentials::Credentials;
use crate::environment::Environment;
use crate::fault::{Fault, chain};

/// Clocks that differ by more confuse whoever compares their logs, in seconds.
const SKEW: u64 = 10;

/// What the rest needs to know of the server.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Whether it is on another machine.
    pub(super) is_elsewhere: bool,
}

pub(super) async fn look(args: &ServerArgs, environment: &Environment, checks: &mut Vec<Check>) -> Seen {
    let mut seen = Seen::default();
    if !is_named(args, environment) {
        let why = "no server is named: log in with `cooper login URL`, or say --server URL";
        checks.push(Check::skipped("server", why));
        return seen;
    }
    let connected = args.resolve(environment).and_then(|Connection { server, token, trust }| {
        let client = Client::trusting(server.clone(), token, &trust)?;
        Ok((client, server, trust))
    });
    let (client, server, trust) = match connected {
        Ok(connected) => connected,
        Err(fault) => {
            checks.push(of_fault("server", fault));
            return seen;
        }
    };
    seen.is_elsewhere = !server.is_loopback();
    match client.probe("/readyz").await {
        Ok(answer) if answer.status == 200 => {
            checks.push(clock(answer.date_seconds));
            checks.push(transport(&server));
        }
        Ok(answer) => {
            let seen_there =
                format!("{server} answers with status {} where a server that is ready says 200", answer.status);
            let remedy = "look at the server's log, or name the right server with --server";
            checks.push(Check::failed("server", seen_there, remedy));
            return seen;
        }
        Err(error) => {
            checks.push(of_fault("server", error.into()));
            return seen;
        }
    }
    match client.info().await {
        Ok(info) => {
            let ours = env!("CARGO_PKG_VERSION");
            let text = format!("{server} is ready, version {}", info.version);
            checks.push(match info.version == ours {
                true => Check::ok("server", text),
                false => {
                    Check::warning("server", format!("{text}; this is {ours}"), "use the same version on both sides")
                }
            });
            let scopes: Vec<String> = info.scopes.0.iter().map(ToString::to_string).collect();
            let text = format!("speaks for {}, may {}", info.principal, scopes.join(" "));
            // An agent's token is no worse for starting no builds.
            let may_work =
                |scope: &Scope| matches!(scope, Scope::Run | Scope::Admin | Scope::Agent | Scope::AgentOf(_));
            checks.push(match info.scopes.0.iter().any(may_work) {
                true => Check::ok("token", text),
                false => {
                    Check::warning("token", text, "builds need a token with the scope `run`: `cooper token create`")
                }
            });
            checks.push(registry(&client, &trust, &info.registry_name).await);
        }
        Err(error @ ClientError::Refused { .. }) => {
            checks.push(Check::ok("server", format!("{server} is ready")));
            checks.push(of_fault("token", error.into()));
            checks.push(Check::skipped("registry", "the server tells the registry's name to valid tokens only"));
        }
        Err(error) => checks.push(of_fault("server", error.into())),
    }
    seen
}

/// Whether anything says which server is meant.
fn is_named(args: &ServerArgs, environment: &Environment) -> bool {
    let logged_in = || Credentials::load(environment).is_ok_and(|credentials| credentials.default.is_some());
    args.server.is_some() || environment.is_set("COOPER_SERVER") || logged_in()
}

fn of_fault(name: &'static str, fault: Fault) -> Check {
    let remedy = fault.hint.unwrap_or_else(|| "mend what is named".to_owned());
    Check::failed(name, fault.message, remedy)
}

fn transport(server: &ServerUrl) -> Check {
    match (server.is_https(), server.is_loopback()) {
        (true, _) => Check::ok("tls", "the server's certificate is valid and trusted here"),
        (false, true) => Check::ok("tls", "none, on this machine alone"),
        (false, false) => Check::warning(
            "tls",
            format!("{server} is plain http: the network can read tokens and images"),
            "give the server TLS, and log in with https",
        ),
    }
}

/// The server's time beside ours. Its answer is to the second.
fn clock(server: Option<i64>) -> Check {
    #[expect(clippy::disallowed_methods, reason = "the clock of this machine is what is looked at")]
    let here = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let here = i64::try_from(here).unwrap_or(i64::MAX);
    match server.map(|server| (server.abs_diff(here), server > here)) {
        None => Check::skipped("clock", "the server's answer bears no time"),
        Some((skew, is_ahead)) if skew > SKEW => Check::warning(
            "clock",
            format!("the server's clock is {skew} s {}", if is_ahead { "ahead" } else { "behind" }),
            "set both clocks by NTP; leases don't depend on them, and times in logs and certificates do",
        ),
        Some((skew, _)) => Check::ok("clock", format!("the server's differs by {skew} s")),
    }
}

/// The registry's name as images bear it: from here it must lead to the server's registry.
async fn registry(client: &Client, trust: &Trust, name: &RegistryName) -> Check {
    let here = if client.server().is_loopback() { "" } else { " (an agent's host forwards that port to the server)" };
    let parse = |scheme: &str| ServerUrl::parse(&format!("{scheme}://{name}"));
    let Ok(plain) = parse("http") else {
        return Check::failed("registry", format!("{name} is no address"), "choose another --registry-name");
    };
    // To a loopback name, engines and what listens there (a server, an agent's forwarder) speak in clear.
    let is_loopback = plain.is_loopback();
    let url = match client.server().is_https() && !is_loopback {
        true => parse("https").unwrap_or(plain),
        false => plain,
    };
    let probe = match url == *client.server() {
        true => client.probe("/v2/").await,
        // Without a token: it is the server's, and this may be somebody else.
        false => match Client::trusting(url, None, trust) {
            Ok(other) => other.probe("/v2/").await,
            Err(error) => Err(error),
        },
    };
    match probe {
        Ok(answer) if answer.status == 200 || (answer.status == 401 && answer.has_realm) => Check::ok(
            "registry",
            match is_loopback {
                true => format!("{name} answers; engines take a loopback name without a certificate"),
                false => format!("{name} answers; engines ask it for a certificate that they trust"),
            },
        ),
        Ok(answer) => Check::failed(
            "registry",
            format!("{name} answers with status {}, as no registry does", answer.status),
            "something else listens there: set --registry-name to a name that leads to this server",
        ),
        Err(error) if is_loopback && !client.server().is_loopback() => {
            Check::skipped("registry", format!("{}{here}", chain(&error)))
        }
        Err(error) => Check::failed(
            "registry",
            chain(&error),
            "set --registry-name to a name that leads to this server from every engine's machine",
        ),
    }
}

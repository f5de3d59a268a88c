//! What is written after `cooper task`, and how a task is shown.

use clap::Parser as _;

use super::*;
use crate::cli::{Cli, Command};

/// What is written, with the words of a shell.
fn read(line: &str) -> TaskArgs {
    let words = shell_words(line);
    let cli = Cli::try_parse_from(["cooper", "task"].into_iter().chain(words.iter().map(String::as_str)));
    let Command::Task(args) = cli.unwrap_or_else(|error| panic!("{line}: {error}")).command else { panic!("{line}") };
    *args
}

/// Words between blanks, and between apostrophes.
fn shell_words(line: &str) -> Vec<String> {
    let parts = line.split('\'').enumerate();
    let words = parts.flat_map(|(index, part)| match index % 2 {
        0 => part.split_whitespace().map(str::to_owned).collect(),
        _ => vec![part.to_owned()],
    });
    words.collect()
}

/// Why a command is refused before a server is asked.
fn refused(line: &str) -> (String, String) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    match runtime.block_on(run(&read(line), &Environment::of(&[]))) {
        Err(Stop::Fault(fault)) => (fault.message, fault.hint.expect("a way out")),
        other => panic!("{line}: {other:?}"),
    }
}

/// The commands of `az acr task` with the flags that they have there.
const OF_AZ: [&str; 21] = [
    "create -n nightly -c https://git.example/a.git#main -f Dockerfile -t a:b --arg A=1 --secret-arg B=2 --target t --no-push \
     --no-cache --platform linux/amd64 --cpu 2 --timeout 600 --status Enabled --agent-pool p --auth-mode None \
     --source-acr-auth-id none --log-template a:b --git-access-token x --source-trigger-name s \
     --commit-trigger-enabled False --pull-request-trigger-enabled TRUE --schedule 't:0 2 * * *' \
     --base-image-trigger-name b --base-image-trigger-enabled True --base-image-trigger-type RUNTIME \
     --update-trigger-endpoint https://x.example --update-trigger-payload-type token",
    "create -n nightly -c /dev/null --cmd 'busybox true' --set a=b --set-secret c=d --values v.yaml --assign-identity [system] \
     --is-system-task",
    "update -n nightly --no-push false --status disabled --commit-trigger-enabled false --auth-mode Default",
    "show -n nightly --with-secure-properties",
    "list",
    "delete -n nightly --yes",
    "run -n nightly -c https://git.example/a.git -f Dockerfile --arg A=1 --secret-arg B=2 --target t --set a=b \
     --set-secret c=d --update-trigger-token t --log-template a:b --agent-pool p --no-logs --no-wait --no-format",
    "logs -n nightly --run-id ca1 --no-format",
    "logs -n nightly -t app:v1",
    "logs --image app",
    "list-runs -n nightly --run-status Failed -t app --top 3",
    "show-run --run-id ca1",
    "cancel-run --run-id ca1",
    "update-run --run-id ca1 --no-archive False",
    "timer add -n nightly --timer-name t1 --schedule '0 2 * * *' --enabled False",
    "timer update -n nightly --timer-name t1 --enabled TRUE",
    "timer list -n nightly",
    "timer remove -n nightly --timer-name t1",
    "credential add -n nightly --login-server r.example -u ann -p x --use-identity [system]",
    "credential list -n nightly",
    "credential remove -n nightly --login-server r.example",
];

#[test]
fn what_az_writes_is_read() {
    for line in OF_AZ {
        assert_eq!(read(line).azure.warnings().len(), 0, "{line}");
        let all = read(&format!("{line} -r registry -g group --subscription s"));
        assert_eq!(all.azure.warnings().len(), 3, "{line}");
        assert_eq!(read(&format!("{line} --resource-group=group")).azure.warnings().len(), 1, "{line}");
    }
}

#[test]
fn what_can_not_be_is_refused_with_a_way_out() {
    let create = "create -n nightly -c https://git.example/a.git -f Dockerfile";
    for (line, message, hint) in [
        (format!("{create} --assign-identity"), "no managed identities", "cooper task credential add"),
        (format!("{create} --assign-identity a b"), "no managed identities", "cooper task credential add"),
        (format!("{create} --is-system-task"), "no tasks of the registry's own", "leave it out"),
        (format!("{create} --set a=b"), "mean nothing for a Dockerfile", "--set, --set-secret and --values are for"),
        (
            "create -n nightly -c https://git.example/a.git -f acb.yaml -t a:b".to_owned(),
            "mean nothing for a task file",
            "--image, --arg",
        ),
        (
            "create -n nightly -c /dev/null -f Dockerfile".to_owned(),
            "`/dev/null` holds no Dockerfile",
            "with --context",
        ),
        (
            "create -n nightly -c /dev/null -f build -t a:b".to_owned(),
            "nothing that `build` could build",
            "with --context",
        ),
        ("show -n nightly --with-secure-properties".to_owned(), "shown to nobody", "`show` says which"),
        (
            "run -n nightly --update-trigger-token t".to_owned(),
            "tells the task's endpoint nothing",
            "base images set off",
        ),
        (
            "credential add -n nightly --login-server r.example --use-identity [system]".to_owned(),
            "no managed identities",
            "a user name and a token",
        ),
        (
            "credential add -n nightly --login-server r.example -u https://own.vault.azure.net/secrets/user -p x"
                .to_owned(),
            "--username is the address of a secret in a vault",
            "--password-stdin",
        ),
        (
            "credential update -n nightly --login-server r.example -p HTTPS://own.Vault.azure.net/secrets/x/1"
                .to_owned(),
            "--password is the address of a secret in a vault",
            "--password-stdin",
        ),
    ] {
        let (said, way_out) = refused(&line);
        assert!(said.contains(message) && way_out.contains(hint), "{line}: {said}; {way_out}");
    }
}

#[test]
fn an_endpoint_is_shown_by_its_host() {
    let shown = |uri: Option<&str>, payload| {
        endpoint(&BaseImageTriggerSettings {
            update_trigger_endpoint: uri.map(str::to_owned),
            update_trigger_payload_type: payload,
            ..BaseImageTriggerSettings::default()
        })
    };
    let (whole, token) = (Some(UpdatePayloadType::Default), Some(UpdatePayloadType::Token));
    for (uri, expect) in [
        ("https://chat.example:8443/t0ken", "https://chat.example:8443/…"),
        ("https://chat.example?key=t0ken", "https://chat.example/…"),
        ("http://chat.example/", "http://chat.example"),
        ("https://ann:t0ken@chat.example", "https://chat.example/…"),
    ] {
        assert_eq!(shown(Some(uri), whole).as_deref(), Some(expect), "{uri}");
    }
    assert_eq!(shown(Some("https://a.example"), token).as_deref(), Some("https://a.example, a token alone"));
    assert!(shown(None, whole).expect("there is one").starts_with("there is one"));
    assert_eq!(shown(None, None), None);
}

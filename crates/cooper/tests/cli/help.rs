//! What the help says. A change shows in the snapshots; `INSTA_UPDATE=always cargo test -p cooper` takes it over.

use super::Cooper;

#[tokio::test]
async fn help_texts() {
    let cooper = Cooper::new();
    let pages: [(&str, &[&str]); 45] = [
        ("cooper", &["--help"]),
        ("serve", &["serve", "--help"]),
        ("build", &["build", "--help"]),
        ("run", &["run", "--help"]),
        ("login", &["login", "--help"]),
        ("logout", &["logout", "--help"]),
        ("token", &["token", "--help"]),
        ("token_create", &["token", "create", "--help"]),
        ("agent", &["agent", "--help"]),
        ("agent_drain", &["agent", "drain", "--help"]),
        ("pool", &["pool", "--help"]),
        ("pool_delete", &["pool", "delete", "--help"]),
        ("credential", &["credential", "--help"]),
        ("credential_set", &["credential", "set", "--help"]),
        ("secret", &["secret", "--help"]),
        ("secret_set", &["secret", "set", "--help"]),
        ("secret_check", &["secret", "check", "--help"]),
        ("secret_allow", &["secret", "allow", "--help"]),
        ("runs", &["runs", "--help"]),
        ("runs_list", &["runs", "list", "--help"]),
        ("runs_show", &["runs", "show", "--help"]),
        ("runs_rerun", &["runs", "rerun", "--help"]),
        ("runs_lock", &["runs", "lock", "--help"]),
        ("runs_diff", &["runs", "diff", "--help"]),
        ("runs_cancel", &["runs", "cancel", "--help"]),
        ("runs_why", &["runs", "why", "--help"]),
        ("task", &["task", "--help"]),
        ("task_create", &["task", "create", "--help"]),
        ("task_update", &["task", "update", "--help"]),
        ("task_run", &["task", "run", "--help"]),
        ("task_timer_add", &["task", "timer", "add", "--help"]),
        ("logs", &["logs", "--help"]),
        ("repository", &["repository", "--help"]),
        ("repository_delete", &["repository", "delete", "--help"]),
        ("purge", &["purge", "--help"]),
        ("lint", &["lint", "--help"]),
        ("render", &["render", "--help"]),
        ("graph", &["graph", "--help"]),
        ("schema", &["schema", "--help"]),
        ("config", &["config", "--help"]),
        ("config_show", &["config", "show", "--help"]),
        ("completions", &["completions", "--help"]),
        ("doctor", &["doctor", "--help"]),
        ("backup", &["backup", "--help"]),
        ("restore", &["restore", "--help"]),
    ];
    for (name, args) in pages {
        let ended = cooper.run(args).await;
        ended.succeeds();
        insta::assert_snapshot!(name, ended.stdout);
    }
}

#[tokio::test]
async fn without_a_command_there_is_help() {
    let ended = Cooper::new().run::<&str>([]).await;
    assert_eq!(ended.code, Some(2));
    assert!(ended.stderr.contains("Usage: cooper <COMMAND>"), "{ended:?}");
}

#[tokio::test]
async fn every_shell_gets_its_completions() {
    let cooper = Cooper::new();
    for (shell, sign) in [
        ("bash", "complete -F _cooper"),
        ("zsh", "#compdef cooper"),
        ("fish", "complete -c cooper"),
        ("powershell", "Register-ArgumentCompleter"),
        ("elvish", "edit:completion:arg-completer[cooper]"),
    ] {
        let ended = cooper.run(["completions", shell]).await;
        ended.succeeds();
        assert!(ended.stdout.contains(sign), "{shell}: {}", &ended.stdout[..ended.stdout.len().min(400)]);
        assert!(ended.stdout.contains("secret-build-arg"), "{shell} knows the flags");
    }
    cooper.run(["completions", "tcsh"]).await.fails_with(2, &["tcsh"]);
}

#[tokio::test]
async fn the_script_completes_in_a_real_bash() {
    let cooper = Cooper::new();
    let script = cooper.run(["completions", "bash"]).await.stdout;
    cooper.write("cooper.bash", &script);
    let line = "source ./cooper.bash; COMP_WORDS=(cooper comp); COMP_CWORD=1; _cooper cooper comp cooper; echo ${COMPREPLY[@]}";
    let out = tokio::process::Command::new("bash").args(["-c", line]).current_dir(cooper.path()).output().await;
    let out = out.expect("bash runs");
    assert_eq!(String::from_utf8_lossy(&out.stdout).trim(), "completions", "{out:?}");
}

#[tokio::test]
async fn settings_are_shown_with_their_origin() {
    let cooper = Cooper::new();
    cooper.write("my.toml", "\nslots = 5\n");
    let args = ["config", "show", "--config", "my.toml", "--listen", "127.0.0.1:1", "--output", "json"];
    let ended = cooper.run(args).await;
    ended.succeeds();
    let shown: serde_json::Value = serde_json::from_str(&ended.stdout).expect("JSON");
    let find = |name: &str| shown.as_array().expect("a list").iter().find(|it| it["name"] == name).expect("a setting");
    assert_eq!((find("slots")["value"].as_str(), find("slots")["origin"].as_str()), (Some("5"), Some("my.toml:2")));
    assert_eq!(find("listen")["origin"], "--listen");
    assert_eq!(find("log")["origin"], "default");
    let text = cooper.run(["config", "show", "--config", "my.toml"]).await;
    assert!(text.stdout.lines().any(|line| line.split_whitespace().eq(["slots", "5", "my.toml:2"])), "{text:?}");

    cooper.write("my.toml", "slots = 0\nsolts = 1\n");
    let ended = cooper.run(args).await;
    ended.fails_with(2, &["my.toml:2", "did you mean `slots`"]);
    assert_eq!(ended.stderr.lines().filter(|line| line.starts_with("error: ")).count(), 2, "{ended:?}");
}

//! What the help says. A change shows in the snapshots; `INSTA_UPDATE=always cargo test -p cooper` takes it over.

use super::Cooper;

#[tokio::test]
async fn help_texts() {
    let cooper = Cooper::new();
    let pages: [(&str, &[&str]); 12] = [
        ("cooper", &["--help"]),
        ("serve", &["serve", "--help"]),
        ("build", &["build", "--help"]),
        ("login", &["login", "--help"]),
        ("logout", &["logout", "--help"]),
        ("token", &["token", "--help"]),
        ("token_create", &["token", "create", "--help"]),
        ("runs", &["runs", "--help"]),
        ("runs_list", &["runs", "list", "--help"]),
        ("runs_show", &["runs", "show", "--help"]),
        ("runs_cancel", &["runs", "cancel", "--help"]),
        ("logs", &["logs", "--help"]),
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

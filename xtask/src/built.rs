//! What Cargo builds, and where it lies.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::process;

/// Runs a command of Cargo that builds, and gives the programs by their names; tests are none.
pub fn programs(command: &mut Command) -> Result<BTreeMap<String, PathBuf>> {
    let messages = process::output(command.arg("--message-format=json-render-diagnostics"))?;
    Ok(messages.lines().filter_map(read).collect())
}

/// Builds the program `chopi` as it is installed.
pub fn released() -> Result<PathBuf> {
    let build = ["build", "--release", "--package=chopi-cli", "--bin=chopi"];
    chopi(&mut process::cargo(build))
}

/// What [`programs`] gives, where the program `chopi` is among it: that one.
pub fn chopi(command: &mut Command) -> Result<PathBuf> {
    let chopi = programs(command)?.remove("chopi");
    chopi.context("Cargo says of no program `chopi` that it has built it")
}

/// What Cargo says of something that it has built.
#[derive(Deserialize)]
pub struct Artifact {
    pub target: Target,
    pub profile: Profile,
    #[serde(default)]
    pub manifest_path: PathBuf,
    /// The program, if it is one.
    pub executable: Option<PathBuf>,
}

#[derive(Deserialize)]
pub struct Target {
    pub name: String,
    pub kind: Vec<String>,
}

#[derive(Deserialize)]
pub struct Profile {
    pub test: bool,
}

impl Artifact {
    /// What a message is about, if it is about something that was built.
    pub fn read(message: &str) -> Option<Self> {
        serde_json::from_str(message).ok()
    }
}

/// The program that a message is about, if it is about one.
fn read(message: &str) -> Option<(String, PathBuf)> {
    let artifact = Artifact::read(message)?;
    let program = artifact.executable.filter(|_| !artifact.profile.test);
    Some((artifact.target.name, program?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_neither_libraries_nor_tests_nor_messages_of_another_kind() {
        let artifact = |test: bool, executable: &str| {
            let target = r#"{"kind":["bin"],"name":"chopi","src_path":"/src/main.rs"}"#;
            let profile = format!(r#"{{"opt_level":"1","test":{test}}}"#);
            read(&format!(
                r#"{{"reason":"compiler-artifact","target":{target},"profile":{profile},"executable":{executable}}}"#
            ))
        };
        let program = ("chopi".to_owned(), PathBuf::from("/debug/chopi"));
        assert_eq!(artifact(false, r#""/debug/chopi""#), Some(program));
        assert_eq!(artifact(true, r#""/debug/deps/chopi-1""#), None);
        assert_eq!(artifact(false, "null"), None);
        assert_eq!(read(r#"{"reason":"build-finished","success":true}"#), None);
    }
}

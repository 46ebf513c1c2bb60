//! Running other programs, and saying which one failed.

use std::ffi::OsStr;
use std::io;
use std::process::{Command, ExitStatus, Stdio};

use anyhow::{Context, Result, bail};

use crate::libtorch::LIBRARY_PATH;

/// A command of the cargo that runs this.
pub fn cargo<I: AsRef<OsStr>>(args: impl IntoIterator<Item = I>) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(args);
    command
}

/// Runs a command that shares our output.
pub fn run(command: &mut Command) -> Result<()> {
    eprintln!("$ {}", shown(command));
    let status = command.status().with_context(|| cannot_run(command))?;
    check(command, status)
}

/// Runs a command whose output is progress: it all goes to standard error.
pub fn run_as_progress(command: &mut Command) -> Result<()> {
    run(command.stdout(Stdio::from(io::stderr())))
}

/// What a command writes to standard output.
pub fn output(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| cannot_run(command))?;
    check(command, output.status)?;
    String::from_utf8(output.stdout)
        .with_context(|| format!("the output of `{}` is not UTF-8", shown(command)))
}

/// Whether a command can be run and succeeds.
pub fn succeeds(command: &mut Command) -> bool {
    let silent = command.stdin(Stdio::null()).stdout(Stdio::null());
    silent
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// An error that shows the command, unless it succeeded.
pub fn check(command: &Command, status: ExitStatus) -> Result<()> {
    if !status.success() {
        bail!("`{}` failed: {status}", shown(command));
    }
    Ok(())
}

/// What to say where a command cannot be started.
pub fn cannot_run(command: &Command) -> String {
    format!("cannot run `{}`", shown(command))
}

/// The command as one would type it in a shell, with the environment variables that it sets, but
/// for those of `cargo xtask libtorch`, which every command of a run has.
pub fn shown(command: &Command) -> String {
    let variables = command.get_envs().filter_map(|(name, value)| {
        let (name, value) = (name.to_string_lossy(), value?.to_string_lossy());
        let of_libtorch = name.starts_with("LIBTORCH") || name == LIBRARY_PATH;
        (!of_libtorch).then(|| format!("{name}={}", quoted(&value)))
    });
    let program = std::path::Path::new(command.get_program());
    let name = match program.file_stem() {
        Some(stem) if stem == "cargo" => "cargo".into(),
        _ => program.to_string_lossy(),
    };
    let words = std::iter::once(name).chain(command.get_args().map(|arg| arg.to_string_lossy()));
    variables
        .chain(words.map(|word| quoted(&word)))
        .collect::<Vec<_>>()
        .join(" ")
}

/// The word as a POSIX shell reads it back.
pub fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./=:,+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_shown_as_a_shell_reads_it() {
        let mut command = cargo(["doc", "--no-deps"]);
        command
            .env("RUSTDOCFLAGS", "-D warnings")
            .env("LIBTORCH", "/libtorch");
        assert_eq!(
            shown(&command),
            "RUSTDOCFLAGS='-D warnings' cargo doc --no-deps"
        );
        assert_eq!(quoted("it's"), r"'it'\''s'");
        assert_eq!(quoted(""), "''");
    }

    #[test]
    fn a_failure_names_the_command() {
        let error = run(&mut cargo(["no-such-command"])).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("`cargo no-such-command` failed"),
            "{error}"
        );
    }
}

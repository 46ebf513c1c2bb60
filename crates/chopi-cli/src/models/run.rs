//! `chopi run`: a text by a decoder.

use std::io::{self, IsTerminal, Write};
use std::time::Instant;

use chopi::models::Model;
use indicatif::HumanBytes;
use serde::Serialize;

use super::memory;
use crate::args::RunArgs;
use crate::error::{Error, Result};
use crate::print::{print_json, printable_text};

/// What the command has done.
#[derive(Serialize)]
struct Report<'a> {
    prompt: &'a str,
    text: String,
    prompt_tokens: usize,
    tokens: Vec<u32>,
    /// From the start of the prompt to its first token.
    prompt_seconds: f64,
    /// Of the tokens after the first.
    tokens_per_second: Option<f64>,
    peak_bytes: Option<u64>,
    /// Of the keys and values of all tokens that the decoder has seen.
    cache_bytes: usize,
}

/// # Errors
/// What is wrong with the model or the prompt.
pub fn run(args: &RunArgs) -> Result<()> {
    let folder = &args.model.folder;
    let cache = args.cache_bits;
    args.model.with(folder, args.model.bits, cache, |model| {
        let write: &mut dyn FnMut(&str) -> io::Result<()> = match args.json {
            true => &mut |_| Ok(()),
            false => &mut stream,
        };
        let report = generate(args, model, write)?;
        if args.json {
            return print_json(&report);
        }
        let mut ended = stream("\n");
        if let Err(error) = &ended
            && error.kind() == io::ErrorKind::BrokenPipe
        {
            ended = Ok(());
        }
        ended.map_err(Error::Print)?;
        report.say();
        Ok(())
    })
}

fn generate<'a>(
    args: &'a RunArgs,
    model: &Model,
    write: &mut dyn FnMut(&str) -> io::Result<()>,
) -> Result<Report<'a>> {
    let wrong = |error| Error::model(&args.model.folder, error);
    let prompt = model.tokens(&args.prompt).map_err(wrong)?;
    let prompt_tokens = prompt.len();
    let mut pieces = model.pieces(&prompt).map_err(wrong)?;
    let start = Instant::now();
    let (mut first, mut last) = (None, start);
    let (mut tokens, mut text) = (Vec::new(), String::new());
    let mut generation = model.generate_tokens(prompt).map_err(wrong)?;
    for token in generation.by_ref().take(args.max_tokens) {
        let token = token.map_err(wrong)?;
        last = Instant::now();
        first.get_or_insert(last);
        tokens.push(token);
        let Some(piece) = pieces.next(token).map_err(wrong)? else {
            continue;
        };
        text.push_str(&piece);
        match write(&piece) {
            // Nobody reads on.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => break,
            done => done.map_err(Error::Print)?,
        }
    }
    let first = first.unwrap_or(start);
    let seconds = (last - first).as_secs_f64();
    let after_first = tokens.len().saturating_sub(1);
    Ok(Report {
        prompt: &args.prompt,
        text,
        prompt_tokens,
        prompt_seconds: (first - start).as_secs_f64(),
        tokens_per_second: (after_first > 0).then(|| after_first as f64 / seconds),
        tokens,
        peak_bytes: memory::peak(),
        cache_bytes: generation.cache().bytes(),
    })
}

/// Writes a piece of text to standard output, where it is seen at once.
fn stream(piece: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.is_terminal() {
        true => stdout.write_all(printable_text(piece).as_bytes())?,
        false => stdout.write_all(piece.as_bytes())?,
    }
    stdout.flush()
}

impl Report<'_> {
    /// Says on standard error how fast it was.
    fn say(&self) {
        let speed = match self.tokens_per_second {
            Some(speed) => format!(", {speed:.1} tokens/s"),
            None => String::new(),
        };
        let memory = match self.peak_bytes {
            Some(bytes) => format!(", {} at most", HumanBytes(bytes)),
            None => String::new(),
        };
        let cache = HumanBytes(self.cache_bytes as u64);
        let (prompt, tokens) = (self.prompt_tokens, self.tokens.len());
        // Where nobody can be told, the text is there all the same.
        let _ = writeln!(
            io::stderr(),
            "chopi: {prompt} tokens of the prompt in {:.2} s; {tokens} tokens{speed}{memory}, {cache} of keys and \
             values",
            self.prompt_seconds
        );
    }
}

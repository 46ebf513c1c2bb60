//! `chopi embed`: the embeddings of texts by an encoder.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;

use serde::Serialize;

use crate::args::EmbedArgs;
use crate::error::{Error, Result};
use crate::print::printable_json;

/// How many texts are embedded at a time.
const BATCH: usize = 32;

#[derive(Serialize)]
struct Line<'a> {
    text: &'a str,
    embedding: &'a [f32],
}

/// # Errors
/// What is wrong with the model or the texts.
pub fn run(args: &EmbedArgs) -> Result<()> {
    let path = &args.texts;
    let input: Box<dyn BufRead + Send> = match path.as_os_str() == "-" {
        true => Box::new(BufReader::new(io::stdin())),
        false => {
            let file = File::open(path).map_err(|source| chopi::formats::Error::Read {
                path: path.clone(),
                source,
            })?;
            Box::new(BufReader::new(file))
        }
    };
    let folder = &args.model.folder;
    args.model.with(folder, args.model.bits, None, |model| {
        // What is wrong with the model is said before anything is read.
        model
            .embed(&[""; 0])
            .map_err(|error| Error::model(folder, error))?;
        let mut lines = input.lines().enumerate();
        loop {
            let mut texts = Vec::with_capacity(BATCH);
            for (number, line) in lines.by_ref() {
                let line = line.map_err(|error| unreadable(path, number, &error))?;
                if !line.trim().is_empty() {
                    texts.push(line);
                }
                if texts.len() == BATCH {
                    break;
                }
            }
            if texts.is_empty() {
                return Ok(());
            }
            let embeddings = model.embed(&texts);
            let embeddings = embeddings.map_err(|error| Error::model(folder, error))?;
            match write(&texts, &embeddings) {
                // Nobody reads on.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
                done => done.map_err(Error::Print)?,
            }
        }
    })
}

fn write(texts: &[String], embeddings: &[Vec<f32>]) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    for (text, embedding) in texts.iter().zip(embeddings) {
        let line = serde_json::to_string(&Line { text, embedding })?;
        writeln!(stdout, "{}", printable_json(&line))?;
    }
    stdout.flush()
}

fn unreadable(path: &Path, number: usize, error: &io::Error) -> Error {
    Error::Text {
        path: path.to_owned(),
        reason: format!("line {}: {error}", number + 1),
    }
}

//! What follows a text.

use candle_core::D;

use crate::decoder::{Cache, Decoder};
use crate::error::{Error, Result};
use crate::model::Model;

/// The tokens that a decoder writes after others, the likeliest each time: an iterator, which ends before a token
/// that ends the text, or where the decoder has no more positions.
#[derive(Debug)]
pub struct Generation<'a> {
    decoder: &'a Decoder,
    end_tokens: &'a [u32],
    cache: Cache,
    /// What the decoder has not yet seen.
    next: Vec<u32>,
}

impl<'a> Generation<'a> {
    fn new(model: &'a Model, tokens: Vec<u32>) -> Result<Self> {
        let decoder = model.decoder()?;
        let (count, limit) = (tokens.len(), decoder.positions());
        match count {
            0 => Err(Error::TooShort {
                tokens: 0,
                least: 1,
            }),
            _ if count > limit => Err(Error::TooLong {
                tokens: count,
                limit,
            }),
            _ => Ok(Self {
                decoder,
                end_tokens: &model.end_tokens,
                cache: decoder.cache(),
                next: tokens,
            }),
        }
    }

    /// The keys and values of the tokens that the decoder has seen.
    pub fn cache(&self) -> &Cache {
        &self.cache
    }

    fn token(&mut self) -> Result<u32> {
        let hidden = self.decoder.hidden(&self.next, &mut self.cache, &mut ())?;
        let last = hidden.narrow(0, hidden.dim(0)? - 1, 1)?;
        let logits = self.decoder.logits(&last, &mut ())?;
        let token = logits.argmax(D::Minus1)?.get(0)?.to_scalar()?;
        self.next = vec![token];
        Ok(token)
    }
}

impl Iterator for Generation<'_> {
    type Item = Result<u32>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.cache.tokens() + self.next.len() > self.decoder.positions() || self.next.is_empty()
        {
            return None;
        }
        let token = self.token();
        match token {
            Ok(token) if self.end_tokens.contains(&token) => {
                self.next.clear();
                None
            }
            Ok(_) => Some(token),
            Err(_) => {
                self.next.clear();
                Some(token)
            }
        }
    }
}

/// Makes text of tokens as they come.
pub struct Pieces<'a>(Stream<'a>);

type Stream<'a> = tokenizers::DecodeStream<
    'a,
    tokenizers::ModelWrapper,
    tokenizers::NormalizerWrapper,
    tokenizers::PreTokenizerWrapper,
    tokenizers::PostProcessorWrapper,
    tokenizers::DecoderWrapper,
>;

impl Pieces<'_> {
    /// The text that a token ends: none, where it ends within a character.
    ///
    /// # Errors
    /// [`Error::Tokenizer`].
    pub fn next(&mut self, token: u32) -> Result<Option<String>> {
        Ok(self.0.step(token)?)
    }
}

impl std::fmt::Debug for Pieces<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pieces").finish_non_exhaustive()
    }
}

impl Model {
    /// The text that follows `prompt`, of at most so many tokens, the likeliest each time.
    ///
    /// # Errors
    /// [`Error::Family`] for an encoder; [`Error::TooShort`] for no prompt, [`Error::TooLong`] for one of more
    /// tokens than the model has positions; what the tokenizer or a layer says.
    pub fn generate(&self, prompt: &str, max_tokens: usize) -> Result<String> {
        let mut text = String::new();
        self.generate_with(prompt, max_tokens, |piece| {
            text.push_str(piece);
            Ok(())
        })?;
        Ok(text)
    }

    /// Writes the text that follows `prompt`, piece by piece, and gives the number of its tokens. A piece ends
    /// where a character does.
    ///
    /// # Errors
    /// The errors of [`generate`](Self::generate), and those of `write`, which end the text.
    pub fn generate_with(
        &self,
        prompt: &str,
        max_tokens: usize,
        mut write: impl FnMut(&str) -> Result<()>,
    ) -> Result<usize> {
        let tokens = self.tokens(prompt)?;
        let mut pieces = self.pieces(&tokens)?;
        let mut count = 0;
        for token in self.generate_tokens(tokens)?.take(max_tokens) {
            count += 1;
            if let Some(piece) = pieces.next(token?)? {
                write(&piece)?;
            }
        }
        Ok(count)
    }

    /// Makes text of the tokens that follow those of a prompt, without tokens that are no text.
    ///
    /// # Errors
    /// [`Error::Tokenizer`].
    pub fn pieces(&self, prompt: &[u32]) -> Result<Pieces<'_>> {
        let mut pieces = Pieces(self.tokenizer.decode_stream(true));
        // The decoder of a tokenizer may take the first token of a text otherwise.
        for &token in prompt {
            pieces.next(token)?;
        }
        Ok(pieces)
    }

    /// The tokens that follow others, the likeliest each time.
    ///
    /// # Errors
    /// [`Error::Family`] for an encoder; [`Error::TooShort`] and [`Error::TooLong`].
    pub fn generate_tokens(&self, tokens: Vec<u32>) -> Result<Generation<'_>> {
        Generation::new(self, tokens)
    }
}

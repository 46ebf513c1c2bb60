//! The program as its users meet it: files in, files out, text and exit status.

mod bad_input;
mod bad_usage;
mod bits_from;
mod compare;
mod compressed_tensors;
mod folders;
mod formats;
mod fuzz;
#[cfg(unix)]
mod hostile;
mod library;
mod model;
#[cfg(feature = "models")]
mod models;
mod printing;
mod report;
#[cfg(all(unix, feature = "models"))]
mod resume;
mod round_trip;
mod selection;
mod sensitivity;
mod statistics;
#[cfg(unix)]
mod stopped;

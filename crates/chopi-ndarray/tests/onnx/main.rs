//! ONNX's operators equal their definitions, evaluated one element at a time, and refuse what does
//! not fit.

mod case;
mod definition;
mod properties;
mod refusals;

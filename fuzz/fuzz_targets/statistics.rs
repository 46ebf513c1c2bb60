//! A file of moments, well made or not: what is read is the same when it is written and read again, and moments of
//! batches in any order and split are the same.
//!
//! The input is a byte of options and the file, or the numbers that batches are drawn from.

#![no_main]

use chopi::ptq::{Moments, Statistics};
use chopi_fuzz::planted;
use chopi_fuzz::program::Folder;
use libfuzzer_sys::fuzz_target;
use ndarray::Array2;

fuzz_target!(|input: &[u8]| {
    let [options, bytes @ ..] = input else { return };
    match options % 2 {
        0 => file(bytes),
        _ => batches(usize::from(options / 2 % 8) + 1, bytes),
    }
});

fn file(bytes: &[u8]) {
    let folder = Folder::new();
    let Ok(statistics) = Statistics::load(&folder.write("in.safetensors", bytes)) else {
        return;
    };
    let path = folder.path("again.safetensors");
    statistics.save(&path).expect("the folder can be written");
    let back = Statistics::load(&path).expect("it was written");
    let same = back == statistics && !planted(statistics.0.len() == 1);
    assert!(same, "it is not the same");
    let mut twice = statistics;
    if twice.merge(&back).is_ok() {
        for (name, moments) in &twice.0 {
            // Both sums are twice as large, and so is the number of rows.
            assert_eq!(moments.mean(), back.0[name].mean());
            assert_eq!(moments.mean_square(), back.0[name].mean_square());
        }
    }
}

fn batches(channels: usize, bytes: &[u8]) {
    let numbers = bytes
        .as_chunks::<4>()
        .0
        .iter()
        .map(|b| f32::from_le_bytes(*b));
    let numbers: Vec<f32> = numbers.collect();
    let rows: Vec<&[f32]> = numbers.chunks_exact(channels).collect();
    let new = || Moments::new(channels).expect("there are channels");
    let observe = |moments: &mut Moments, row: &[f32]| {
        let row = Array2::from_shape_vec((1, channels), row.to_vec()).expect("it is one row");
        moments.observe(&row).is_ok()
    };
    let mut all = new();
    let seen: Vec<bool> = rows.iter().map(|row| observe(&mut all, row)).collect();
    let some = rows
        .iter()
        .zip(&seen)
        .filter(|(_, seen)| **seen)
        .map(|(row, _)| row);
    let (mut even, mut odd) = (new(), new());
    for (i, row) in some.rev().enumerate() {
        let moments = if i % 2 == 0 { &mut even } else { &mut odd };
        assert!(observe(moments, row), "it was observed before");
    }
    even.merge(&odd).expect("all of them were observed before");
    assert_eq!(all, even);
}

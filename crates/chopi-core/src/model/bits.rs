//! Bits for each tensor under a budget.

use std::collections::BTreeMap;

use super::Sensitivity;
use crate::error::{Error, Result};

/// The bits that each tensor of a model gets.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Allocation {
    /// The bits of each tensor that is quantized, by name; the others stay in float.
    pub bits: BTreeMap<String, u32>,
    /// The bytes of all tensors, those in float too.
    pub bytes: u64,
    /// The sum of the losses of all tensors.
    pub loss: f64,
}

/// Chooses the bits of each tensor so that all together take at most `budget` bytes and the sum of
/// their losses is small.
///
/// The method is greedy. A step moves one tensor from one of its choices to another with fewer bytes, and its
/// slope is the loss that it adds, divided by the bytes that it saves. All tensors start in float. While their
/// bytes exceed the budget, the step with the smallest slope is taken; of equal slopes the step that saves the
/// fewest bytes, then that of the first tensor. Steps that add no loss are always taken. The last step may have
/// saved more than was needed: so at the end steps in the other direction that still fit the budget are taken,
/// each time the one that removes most loss for each byte that it adds.
///
/// The steps of a tensor lie on the lower convex hull of its choices, so after the first phase the sum of the
/// losses is at most one step's loss above the least that the budget allows. The result depends on the
/// sensitivities and their order alone.
///
/// # Errors
/// [`Error::Budget`] where even the smallest choices take more.
pub fn allocate_bits(sensitivities: &[Sensitivity], budget: u64) -> Result<Allocation> {
    let mut tensors: Vec<Tensor<'_>> = sensitivities.iter().map(Tensor::new).collect();
    let bytes = |tensors: &[Tensor<'_>]| {
        let bytes = tensors.iter().map(|t| t.state().bytes);
        bytes.fold(0, u64::saturating_add)
    };
    loop {
        let slopes = tensors
            .iter()
            .map(|t| t.step(|now, to| to.bytes < now.bytes));
        let steps = slopes.enumerate().filter_map(|(i, step)| Some((i, step?)));
        let least = steps.min_by(|(_, a), (_, b)| a.slope.total_cmp(&b.slope));
        let over = bytes(&tensors) > budget;
        match least {
            Some((i, step)) if over || step.slope <= 0.0 => tensors[i].now = step.to,
            None if over => {
                let least = bytes(&tensors);
                return Err(Error::Budget { budget, least });
            }
            _ => break,
        }
    }
    loop {
        let room = budget - bytes(&tensors);
        let fits = |now: State, to: State| {
            to.bytes > now.bytes && to.bytes - now.bytes <= room && to.loss < now.loss
        };
        let steps = tensors.iter().map(|t| t.step(fits));
        let steps = steps.enumerate().filter_map(|(i, step)| Some((i, step?)));
        // Of a step back the slope is what it mends for each byte; the first of equals.
        let best = steps.min_by(|(_, a), (_, b)| b.slope.total_cmp(&a.slope));
        match best {
            Some((i, step)) => tensors[i].now = step.to,
            None => break,
        }
    }
    let quantized = tensors.iter().filter_map(|t| {
        let choice = t.now.checked_sub(1)?;
        let sensitivity = t.sensitivity;
        Some((
            sensitivity.name().to_owned(),
            sensitivity.choices()[choice].bits,
        ))
    });
    Ok(Allocation {
        bits: quantized.collect(),
        bytes: bytes(&tensors),
        loss: tensors.iter().map(|t| t.state().loss).sum(),
    })
}

/// A tensor and what it is quantized to.
#[derive(Clone, Copy, Debug)]
struct Tensor<'a> {
    sensitivity: &'a Sensitivity,
    /// 0 in float, i + 1 with the i-th choice.
    now: usize,
}

/// The bytes and the loss of a tensor, quantized to one number of bits or in float.
#[derive(Clone, Copy, Debug, PartialEq)]
struct State {
    bytes: u64,
    loss: f64,
}

/// A change of what one tensor is quantized to.
#[derive(Clone, Copy, Debug)]
struct Step {
    to: usize,
    /// The difference in loss for each byte of the difference in size: the loss that is added for
    /// each byte saved, or mended for each byte spent.
    slope: f64,
}

impl<'a> Tensor<'a> {
    fn new(sensitivity: &'a Sensitivity) -> Self {
        let now = 0;
        Self { sensitivity, now }
    }

    fn state(&self) -> State {
        self.state_of(self.now)
    }

    fn state_of(&self, index: usize) -> State {
        match index.checked_sub(1) {
            None => State {
                bytes: self.sensitivity.bytes(),
                loss: 0.0,
            },
            Some(choice) => {
                let choice = self.sensitivity.choices()[choice];
                State {
                    bytes: choice.bytes,
                    loss: choice.loss,
                }
            }
        }
    }

    /// The best of the steps that `allowed` takes, from one state to another: down the one of the least
    /// slope, up the one of the largest; of equals the shortest.
    fn step(&self, allowed: impl Fn(State, State) -> bool) -> Option<Step> {
        let now = self.state();
        let states = (0..=self.sensitivity.choices().len()).map(|to| (to, self.state_of(to)));
        let steps = states.filter(|(_, state)| allowed(now, *state));
        let with_slope = steps.map(|(to, state)| {
            let slope = (state.loss - now.loss) / (now.bytes as f64 - state.bytes as f64);
            let bytes = now.bytes.abs_diff(state.bytes);
            // Least first, both ways.
            let order = if state.bytes < now.bytes {
                slope
            } else {
                -slope
            };
            (order, bytes, Step { to, slope })
        });
        let best = with_slope.min_by(|(a, a_bytes, _), (b, b_bytes, _)| {
            a.total_cmp(b).then_with(|| a_bytes.cmp(b_bytes))
        });
        best.map(|(_, _, step)| step)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Choice;
    use super::*;

    fn model() -> impl Strategy<Value = Vec<Sensitivity>> {
        let choice = (1_u64..60, 0_u32..40);
        let tensor = proptest::collection::vec(choice, 1..4);
        proptest::collection::vec(tensor, 1..5).prop_map(|tensors| {
            let tensor = |(i, choices): (usize, Vec<(u64, u32)>)| {
                let choice = |(i, (bytes, loss)): (usize, (u64, u32))| Choice {
                    bits: 2 + i as u32,
                    bytes,
                    loss: f64::from(loss),
                };
                let choices = choices.into_iter().enumerate().map(choice).collect();
                Sensitivity::new(&format!("t{i}"), 64, choices).unwrap()
            };
            tensors.into_iter().enumerate().map(tensor).collect()
        })
    }

    /// The bytes and the loss of every combination.
    fn all(model: &[Sensitivity]) -> Vec<(u64, f64)> {
        model.iter().fold(vec![(0, 0.0)], |sums, s| {
            let states = s.choices().iter().map(|c| (c.bytes, c.loss));
            let states: Vec<_> = std::iter::once((s.bytes(), 0.0)).chain(states).collect();
            let add = |(bytes, loss): (u64, f64)| {
                states
                    .iter()
                    .map(move |(b, d)| (bytes + b, loss + d))
                    .collect::<Vec<_>>()
            };
            sums.into_iter().flat_map(add).collect()
        })
    }

    proptest! {
        #[test]
        fn it_fits_the_budget_and_is_within_a_step_of_the_best(
            model in model(),
            budget in 0_u64..256,
        ) {
            let fitting = all(&model).into_iter().filter(|(bytes, _)| *bytes <= budget);
            let best = fitting.map(|(_, loss)| loss).min_by(f64::total_cmp);
            match (allocate_bits(&model, budget), best) {
                (Ok(found), Some(best)) => {
                    prop_assert!(found.bytes <= budget);
                    prop_assert!(found.loss >= best);
                    let step = model.iter().flat_map(|s| s.choices()).map(|c| c.loss);
                    prop_assert!(found.loss <= best + step.fold(0.0, f64::max));
                    // It says what it has chosen.
                    let chosen = |s: &Sensitivity| match found.bits.get(s.name()) {
                        Some(&bits) => s.choice(bits).map(|c| (c.bytes, c.loss)).unwrap(),
                        None => (s.bytes(), 0.0),
                    };
                    let (bytes, loss): (Vec<u64>, Vec<f64>) = model.iter().map(chosen).unzip();
                    prop_assert_eq!(found.bytes, bytes.into_iter().sum::<u64>());
                    prop_assert_eq!(found.loss, loss.into_iter().sum::<f64>());
                }
                (Err(Error::Budget { least, .. }), None) => {
                    let smallest = all(&model).into_iter().map(|(bytes, _)| bytes).min();
                    prop_assert_eq!(Some(least), smallest);
                }
                (found, best) => prop_assert!(false, "{found:?}, but {best:?}"),
            }
        }

        #[test]
        fn its_own_size_is_budget_enough(model in model(), budget in 0_u64..256) {
            if let Ok(found) = allocate_bits(&model, budget) {
                prop_assert!(allocate_bits(&model, found.bytes).unwrap().bytes <= found.bytes);
            }
        }
    }

    #[test]
    fn the_least_sensitive_gets_the_fewest_bits() {
        let tensor = |name: &str, loss: f64| {
            let choice = |bits: u32| Choice {
                bits,
                bytes: 10 * u64::from(bits),
                loss: loss * f64::from(1 << (2 * (8 - bits))),
            };
            Sensitivity::new(name, 320, vec![choice(8), choice(4), choice(2)]).unwrap()
        };
        let model = [tensor("robust", 1.0), tensor("sensitive", 100.0)];
        let bits = |budget| allocate_bits(&model, budget).unwrap().bits;
        assert_eq!(bits(640).len(), 0);
        assert_eq!(
            bits(160),
            [("robust".to_owned(), 8), ("sensitive".to_owned(), 8)].into()
        );
        assert_eq!(
            bits(120),
            [("robust".to_owned(), 4), ("sensitive".to_owned(), 8)].into()
        );
        assert_eq!(
            bits(79),
            [("robust".to_owned(), 2), ("sensitive".to_owned(), 4)].into()
        );
        assert!(matches!(
            allocate_bits(&model, 39),
            Err(Error::Budget { least: 40, .. })
        ));
    }

    #[test]
    fn what_loses_nothing_is_done_anyway() {
        let choice = Choice {
            bits: 8,
            bytes: 10,
            loss: 0.0,
        };
        let model = [Sensitivity::new("zeros", 40, vec![choice]).unwrap()];
        assert_eq!(allocate_bits(&model, 1000).unwrap().bytes, 10);
    }
}

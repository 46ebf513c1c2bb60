//! Fake-quantizers, learned parameters and gradients.

use chopi::backend::{FloatType, Layout};
use chopi::training::{
    FakeQuantizer, GradientFactor, Initialization, LearnedParams, Learning, Phase, RangeObserver,
    SharedQuantizer, fake_quantize, straight_through,
};
use chopi::{Builder, Chopi, Convention};
use chopi_conformance::{alone, for_each_change, for_each_failure};

use crate::{array, turned};

const GROUPS: usize = 2048;
const COLUMNS: usize = 16;

fn quantizers() -> Vec<(&'static str, FakeQuantizer)> {
    let new = || {
        let builder = Chopi::builder().num_bits(8).per_channel(0);
        FakeQuantizer::new(builder.build().unwrap())
    };
    let learned = |initialization| {
        new().learning(Learning {
            initialization,
            ..Learning::lsq_plus()
        })
    };
    vec![
        ("latest", new().observer(RangeObserver::Latest)),
        ("min and max", new().observer(RangeObserver::min_max())),
        ("moving average", new()),
        ("least squares", learned(Initialization::LeastSquares)),
        ("mean magnitude", learned(Initialization::MeanMagnitude)),
    ]
}

/// A shared quantizer whose copies are others.
#[derive(Debug)]
struct Shared(SharedQuantizer);

impl Clone for Shared {
    fn clone(&self) -> Self {
        Self(SharedQuantizer::new(self.0.state()))
    }
}

impl PartialEq for Shared {
    fn eq(&self, other: &Self) -> bool {
        self.0.state() == other.0.state()
    }
}

#[test]
fn a_step_gives_an_error_and_changes_nothing() {
    let _alone = alone();
    let (x, next) = (array((GROUPS, COLUMNS)), turned((GROUPS, COLUMNS)));
    for (name, new) in quantizers() {
        let mut second = new.clone();
        second.step(&x, Phase::Training).unwrap();
        for (before, x) in [(&new, &x), (&second, &next)] {
            if second.learned().is_some() && before == &second {
                // Learning has started, and nothing more is to be known.
                continue;
            }
            for_each_change(name, before, |q| q.step(x, Phase::Training).map(|_| ()));
            let shared = Shared(SharedQuantizer::new(before.clone()));
            for_each_change(name, &shared, |q| q.0.step(x, Phase::Training));
        }
    }
}

fn builders() -> [(&'static str, Builder); 4] {
    let builder = || Chopi::builder().num_bits(8);
    [
        ("per channel", builder().per_channel(0)),
        ("short channels", builder().per_channel(1)),
        ("per group", builder().per_group(3, 1)),
        ("torch", {
            builder().convention(Convention::TORCH_FAKE).per_channel(0)
        }),
    ]
}

#[test]
fn gradients_are_computed_or_there_is_an_error() {
    let _alone = alone();
    let (x, dy) = (array((GROUPS, COLUMNS)), array((GROUPS, COLUMNS)));
    let (x, dy) = (x.as_slice().unwrap(), dy.as_slice().unwrap());
    let row_major = Layout::row_major(&[GROUPS, COLUMNS]);
    let turned = Layout::dense(&[GROUPS, COLUMNS], &[1, GROUPS as isize]).unwrap();
    for (name, builder) in builders() {
        let mut quantizer = builder.build().unwrap();
        quantizer.calibrate(&array((GROUPS, COLUMNS))).unwrap();
        let params = quantizer.params().unwrap();
        let zeros: Vec<f64> = params.zero_point().iter().map(|&z| z as f64).collect();
        let learned = || {
            LearnedParams::new(
                params.scheme(),
                params.convention(),
                FloatType::F32,
                params.shape(),
                (params.scale(), &zeros),
                GradientFactor::Lsq,
            )
        };
        if params.scale().len() > 512 {
            for_each_failure(name, learned);
        }
        let learned = learned().unwrap();
        for layout in [&row_major, &turned] {
            for_each_failure(name, || learned.gradients(x, dy, layout));
            for_each_failure(name, || fake_quantize(x, layout, params));
            for_each_failure(name, || straight_through(x, dy, layout, params));
        }
        if name != "torch" {
            let x = array((GROUPS, COLUMNS));
            for_each_failure(name, || learned.scale_derivative(&x));
        }
    }
}

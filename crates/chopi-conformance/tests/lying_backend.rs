//! A backend that says something else than it does gives errors and wrong tensors: no panic, and no
//! memory that was not written.
//!
//! Its tensors have neither elements nor a shape. Each call throws a die for what to say: the truth
//! about one tensor most of the time, so that lies come after it has been believed.

#![forbid(unsafe_code)]

use std::cell::RefCell;
use std::mem::MaybeUninit;

use chopi_core::backend::{
    Backend, Fill, Float, FloatSliceMut, FloatTensor, FloatTensorMut, FloatType, HostFloats,
    HostFloatsMut, HostInts, HostIntsMut, HostOnly, Int, IntSliceMut, IntTensor, IntTensorMut,
    Layout, bf16, f16,
};
use chopi_core::metrics::{compare, quantization_metrics};
use chopi_core::model::{ObservationPoints, Sensitivity, WeightQuantizer};
use chopi_core::observer::{Histograms, Ranges};
use chopi_core::training::{
    FakeQuantizer, GradientFactor, LearnedParams, Learning, Phase, least_squares, mean_magnitude,
};
use chopi_core::{
    Builder, Calibration, Chopi, Convention, Error, Granularity, NanPolicy, Observer, QParams,
    Result, Rounding,
};

struct Lies;

impl Backend for Lies {
    const NAME: &'static str = "lies";
}

/// SplitMix64.
#[derive(Clone)]
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    /// True once in `n` throws.
    fn once_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    fn of<T: Clone>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())].clone()
    }
}

/// A tensor, integer and float, whose every word is thrown for.
struct Liar {
    dice: RefCell<Dice>,
    /// What it says when it says the truth.
    shape: Vec<usize>,
    float: FloatType,
    /// One lie in so many words; none where it is 0.
    lies: usize,
}

const FLOATS: [FloatType; 4] = [
    FloatType::F16,
    FloatType::BF16,
    FloatType::F32,
    FloatType::F64,
];

/// More elements than this are not made.
const MOST: usize = 1 << 18;

impl Liar {
    fn new(seed: u64, shape: &[usize], float: FloatType, lies: usize) -> Self {
        Self {
            dice: RefCell::new(Dice(seed)),
            shape: shape.to_vec(),
            float,
            lies,
        }
    }

    fn throw<T>(&self, f: impl FnOnce(&mut Dice) -> T) -> T {
        f(&mut self.dice.borrow_mut())
    }

    fn lies(&self) -> bool {
        self.lies > 0 && self.throw(|dice| dice.once_in(self.lies))
    }

    /// Another tensor that lies like this one.
    fn child(&self) -> Self {
        let seed = self.throw(Dice::next);
        Self::new(seed, &self.shape, self.float, self.lies)
    }

    fn layout(&self) -> Layout {
        if !self.lies() {
            return Layout::row_major(&self.shape);
        }
        let (max, big) = (usize::MAX, 1 << 40);
        let mut shape = self.throw(|dice| {
            dice.of(&[
                vec![],
                vec![0],
                vec![1],
                vec![max],
                vec![0, max],
                vec![max, 0],
                vec![max, 2],
                vec![big, big, 0],
                vec![0, big, big],
                vec![big, 0, big],
                vec![100, 2, 0],
                vec![6, 4],
                vec![24],
                vec![2, 3, 4],
                vec![4, 5],
                vec![1; 300],
            ])
        });
        if self.throw(|dice| dice.once_in(2)) {
            shape = self.shape.clone();
        }
        // The first axis innermost.
        let mut next = 1_isize;
        let mut strides = Vec::new();
        for &len in &shape {
            strides.push(next);
            next = next.wrapping_mul(len as isize);
        }
        match self.throw(|dice| dice.once_in(2)) {
            true => Layout::dense(&shape, &strides),
            false => None,
        }
        .unwrap_or_else(|| Layout::row_major(&shape))
    }

    /// How many elements to give for a layout.
    fn count(&self, layout: &Layout) -> usize {
        let truth = layout.len();
        let said = match self.lies() {
            true => self.throw(|dice| dice.of(&[0, 1, truth / 2, truth.saturating_add(1), 24, 77])),
            false => truth,
        };
        said.min(MOST)
    }

    fn floats<F: Float>(&self, count: usize) -> Vec<F> {
        let strange = self.lies() && self.throw(|dice| dice.once_in(4));
        let mut dice = self.throw(|dice| Dice(dice.next()));
        let mut number = || match strange && dice.once_in(9) {
            true => dice.of(&[f64::NAN, f64::INFINITY, -0.0, 1e300]),
            false => dice.below(2000) as f64 / 100.0 - 7.0,
        };
        let narrow = |x| F::narrow(num_traits::NumCast::from(x).unwrap());
        (0..count).map(|_| narrow(number())).collect()
    }

    fn ints<I: Int + TryFrom<i64>>(&self, count: usize) -> Vec<I> {
        let strange = self.lies();
        let mut dice = self.throw(|dice| Dice(dice.next()));
        let mut code = || match strange {
            true => dice.of(&[i64::MIN, i64::MAX, -1, 256, 1 << 40]),
            false => dice.below(4) as i64,
        };
        let int = |code| I::try_from(code).unwrap_or_default();
        (0..count).map(|_| int(code())).collect()
    }

    fn float_type(&self) -> FloatType {
        match self.lies() {
            true => self.throw(|dice| dice.of(&FLOATS)),
            false => self.float,
        }
    }

    /// What the function gave, or an error in its place.
    fn passed<R>(&self, result: Result<R>) -> Result<R> {
        let result = result?;
        match self.lies() {
            true => Err(Error::NotCalibrated),
            false => Ok(result),
        }
    }

    fn fill_floats(
        &self,
        float: FloatType,
        fill: Fill<impl FnOnce(FloatSliceMut<'_>) -> Result<()>>,
    ) -> Result<Liar> {
        fn other<F: Float>(
            len: usize,
            fill: Fill<impl FnOnce(FloatSliceMut<'_>) -> Result<()>>,
        ) -> Result<()> {
            let mut memory = vec![MaybeUninit::<F>::uninit(); len.min(MOST)];
            fill.write_floats(F::slice_mut(&mut memory))
        }
        match self.lies().then(|| self.throw(|dice| dice.below(4))) {
            // It is never called.
            Some(0) => drop(fill),
            // It writes other memory than the tensor's, and it doesn't matter what it says.
            Some(1) => {
                let len = self.throw(|dice| dice.of(&[0, 1, fill.len(), fill.len() + 1]));
                let _ = match float {
                    FloatType::F16 => other::<f16>(len, fill),
                    FloatType::BF16 => other::<bf16>(len, fill),
                    FloatType::F32 => other::<f32>(len, fill),
                    FloatType::F64 => other::<f64>(len, fill),
                };
            }
            // The tensor asks itself in between.
            Some(2) => {
                FloatTensor::with_host(&self.child(), |_| Ok(()))?;
                drop(fill.into_floats::<f32>()?);
            }
            _ => match float {
                FloatType::F16 => fill.into_floats::<f16>().map(drop)?,
                FloatType::BF16 => fill.into_floats::<bf16>().map(drop)?,
                FloatType::F32 => fill.into_floats::<f32>().map(drop)?,
                FloatType::F64 => fill.into_floats::<f64>().map(drop)?,
            },
        }
        Ok(self.child())
    }
}

impl FloatTensor<Lies> for Liar {
    type Owned = Liar;
    type Int = Liar;
    type Device = HostOnly<Liar, Liar>;

    fn rank(&self) -> usize {
        match self.lies() {
            true => self.throw(|dice| dice.of(&[0, 1, 2, 3, 300, usize::MAX])),
            false => self.shape.len(),
        }
    }

    fn with_host<R>(&self, f: impl FnOnce(HostFloats<'_>) -> Result<R>) -> Result<R> {
        let layout = self.layout();
        let count = self.count(&layout);
        let (f16s, bf16s, f32s, f64s): (Vec<f16>, Vec<bf16>, Vec<f32>, Vec<f64>);
        let data = match self.float_type() {
            FloatType::F16 => {
                f16s = self.floats(count);
                f16::slice(&f16s)
            }
            FloatType::BF16 => {
                bf16s = self.floats(count);
                bf16::slice(&bf16s)
            }
            FloatType::F32 => {
                f32s = self.floats(count);
                f32::slice(&f32s)
            }
            FloatType::F64 => {
                f64s = self.floats(count);
                f64::slice(&f64s)
            }
        };
        self.passed(f(HostFloats::new(data, layout)?))
    }

    fn int_like(
        &self,
        bounds: (i64, i64),
        _: &Layout,
        fill: Fill<impl FnOnce(IntSliceMut<'_>) -> Result<()>>,
    ) -> Result<Liar> {
        match self.lies().then(|| self.throw(|dice| dice.below(7))) {
            Some(0) => drop(fill),
            Some(1) => {
                let len = self.throw(|dice| dice.of(&[0, 1, fill.len(), fill.len() + 1]));
                let mut memory = vec![MaybeUninit::<i16>::uninit(); len.min(MOST)];
                let _ = fill.write_ints(i16::slice_mut(&mut memory));
            }
            // Types that may not hold the codes.
            Some(2) => fill.into_ints::<i8>().map(drop)?,
            Some(3) => fill.into_ints::<u8>().map(drop)?,
            Some(4) => fill.into_ints::<u32>().map(drop)?,
            Some(5) => drop(FloatTensor::with_host(&self.child(), |_| Ok(()))),
            _ if bounds == (0, 255) => fill.into_ints::<u8>().map(drop)?,
            _ => fill.into_ints::<i64>().map(drop)?,
        }
        Ok(self.child())
    }

    fn float_like(
        &self,
        _: &Layout,
        fill: Fill<impl FnOnce(FloatSliceMut<'_>) -> Result<()>>,
    ) -> Result<Liar> {
        self.fill_floats(self.float_type(), fill)
    }
}

impl IntTensor<Lies> for Liar {
    type Float = Liar;
    type Device = HostOnly<Liar, Liar>;

    fn with_host<R>(&self, f: impl FnOnce(HostInts<'_>) -> Result<R>) -> Result<R> {
        let layout = self.layout();
        let count = self.count(&layout);
        let (i8s, u16s, i64s): (Vec<i8>, Vec<u16>, Vec<i64>);
        let data = match self.throw(|dice| dice.below(3)) {
            0 => {
                i8s = self.ints(count);
                i8::slice(&i8s)
            }
            1 => {
                u16s = self.ints(count);
                u16::slice(&u16s)
            }
            _ => {
                i64s = self.ints(count);
                i64::slice(&i64s)
            }
        };
        self.passed(f(HostInts::new(data, layout)?))
    }

    fn float_like(
        &self,
        float: FloatType,
        _: &Layout,
        fill: Fill<impl FnOnce(FloatSliceMut<'_>) -> Result<()>>,
    ) -> Result<Liar> {
        let float = if self.lies() {
            self.float_type()
        } else {
            float
        };
        self.fill_floats(float, fill)
    }
}

impl FloatTensorMut<Lies> for Liar {
    fn with_host_mut<R>(&mut self, f: impl FnOnce(HostFloatsMut<'_>) -> Result<R>) -> Result<R> {
        let layout = self.layout();
        let count = self.count(&layout);
        let float = self.float_type();
        let result = match float {
            FloatType::F16 => f(HostFloatsMut::new(&mut self.floats::<f16>(count), layout)?),
            FloatType::BF16 => f(HostFloatsMut::new(&mut self.floats::<bf16>(count), layout)?),
            FloatType::F32 => f(HostFloatsMut::new(&mut self.floats::<f32>(count), layout)?),
            FloatType::F64 => f(HostFloatsMut::new(&mut self.floats::<f64>(count), layout)?),
        };
        self.passed(result)
    }
}

impl IntTensorMut<Lies> for Liar {
    fn with_host_mut<R>(&mut self, f: impl FnOnce(HostIntsMut<'_>) -> Result<R>) -> Result<R> {
        let layout = self.layout();
        let count = self.count(&layout);
        let result = match self.throw(|dice| dice.below(3)) {
            0 => f(HostIntsMut::new(&mut self.ints::<i8>(count), layout)?),
            1 => f(HostIntsMut::new(&mut self.ints::<u16>(count), layout)?),
            _ => f(HostIntsMut::new(&mut self.ints::<i64>(count), layout)?),
        };
        self.passed(result)
    }
}

/// A quantizer of any kind that there is.
fn any_builder(dice: &mut Dice) -> Builder {
    let axis = dice.below(7) as isize - 3;
    let size = dice.of(&[1, 2, 3, 7, 64, usize::MAX]);
    let granularity = dice.of(&[
        Granularity::PerTensor,
        Granularity::PerChannel { axis },
        Granularity::PerGroup { axis, size },
    ]);
    let seed = dice.next();
    let rounding = dice.of(&[
        Rounding::NearestEven,
        Rounding::NearestAway,
        Rounding::Floor,
        Rounding::Stochastic { seed },
    ]);
    Chopi::builder()
        .num_bits(dice.of(&[2, 4, 8, 16, 32]))
        .symmetric(dice.once_in(2))
        .granularity(granularity)
        .rounding(rounding)
        .convention(dice.of(Convention::ALL))
        .nan_policy(dice.of(&[NanPolicy::Error, NanPolicy::ZeroPoint]))
}

/// A quantizer, and its parameters for the tensor as it is when it doesn't lie.
fn any_quantizer(
    dice: &mut Dice,
    shape: &[usize],
    float: FloatType,
) -> Result<(Builder, Chopi, QParams)> {
    // Most conventions have few of the schemes.
    for _ in 0..100 {
        let builder = any_builder(dice);
        let Ok(quantizer) = builder.clone().build() else {
            continue;
        };
        let (scheme, convention) = (builder.scheme()?, *quantizer.convention());
        let granularity = convention.granularity_for(scheme.granularity, shape.len());
        let mut calibrated = quantizer.clone();
        let truth = Liar::new(dice.next(), shape, float, 0);
        if calibrated.calibrate(&truth).is_ok() {
            let params = calibrated.params().ok_or(Error::NotCalibrated)?.clone();
            return Ok((builder, quantizer, params));
        }
        // Where there is nothing to calibrate on.
        let Ok(of) = granularity.params_shape(shape) else {
            continue;
        };
        let groups = of.iter().try_fold(1, |n: usize, &len| n.checked_mul(len));
        let Some(groups) = groups.filter(|&groups| groups <= MOST) else {
            continue;
        };
        let (scale, zero) = (vec![0.5; groups], vec![0; groups]);
        if let Ok(params) = QParams::new(scheme, convention, float, of, scale, zero) {
            return Ok((builder, quantizer, params));
        }
    }
    Err(Error::NotCalibrated)
}

fn any_calibration(dice: &mut Dice) -> Calibration {
    dice.of(&[
        Calibration::MinMax,
        Calibration::Percentile(99.0),
        Calibration::MeanSquaredError,
        Calibration::KullbackLeibler,
    ])
}

/// Every operation on tensors that lie once in `lies` words; how many succeeded.
fn every_operation(dice: &mut Dice, shape: &[usize], lies: usize) -> Result<usize> {
    let float = dice.of(&FLOATS);
    let liar = |dice: &mut Dice| Liar::new(dice.next(), shape, float, lies);
    let (builder, quantizer, params) = any_quantizer(dice, shape, float)?;
    let scheme = builder.scheme()?;
    let convention = *quantizer.convention();
    let calibration = any_calibration(dice);
    let (x, y) = (&liar(dice), &liar(dice));
    let (out, mut codes) = (&mut liar(dice), liar(dice));
    let mut successes = 0;
    // A macro, since the results are of many types.
    macro_rules! tried {
        ($($operation:expr),* $(,)?) => {$(
            successes += usize::from($operation.is_ok());
        )*};
    }

    let mut fresh = quantizer.clone();
    tried!(
        fresh.calibrate(x),
        quantizer.clone().quantize(x),
        quantizer.clone().quantize_into(x, &mut codes),
        quantizer.clone().fake_quantize(x),
        quantizer.clone().fake_quantize_into(x, out),
        quantizer.clone().fake_quantize_with_mask(x),
        quantizer.dequantize(x),
    );

    tried!(
        params.quantize(x),
        params.quantize_into(x, &mut codes),
        params.dequantize(x),
        params.dequantize_into(x, out),
        params.fake_quantize(x),
        params.fake_quantize_into(x, out),
        params.fake_quantize_with_mask(x),
        quantization_metrics(x, &params),
        compare(x, y, scheme.granularity),
    );
    let zeros = vec![0.3; params.scale().len()];
    let learned = LearnedParams::new(
        &scheme,
        &convention,
        float,
        params.shape(),
        (params.scale(), &zeros),
        GradientFactor::Lsq,
    );
    if let Ok(learned) = learned {
        tried!(
            learned.scale_derivative(x),
            learned.factors(&x.layout()),
            learned.gradients(&[0.5_f32; 24], &[1.0; 24], &x.layout()),
        );
    }

    tried!(
        Ranges::observe(x, scheme.granularity),
        Histograms::observe(x, scheme.granularity),
        calibration.observe(x, &scheme, &convention),
        least_squares(x, &scheme, &convention),
        mean_magnitude(x, &scheme, &convention),
    );
    let mut observer = Observer::new(scheme, convention, calibration)?;
    let points = ObservationPoints::new(&observer);
    tried!(
        observer.observe(x),
        observer.observe(y),
        observer.params(),
        points.observe("x", x),
        points.observe("x", y),
        points.params(),
    );
    let mut training = FakeQuantizer::new(quantizer.clone());
    let mut learning = FakeQuantizer::new(quantizer).learning(Learning::lsq_plus());
    tried!(
        training.step(x, Phase::Training),
        training.step(y, Phase::Training),
        learning.step(x, Phase::Training),
        learning.step(y, Phase::Evaluation),
    );
    tried!(
        Sensitivity::without_data("x", x, &[2, 8], (&builder, calibration)),
        WeightQuantizer::new(builder, calibration)?.fake_quantize("x", x),
    );
    Ok(successes)
}

fn every_operation_many_times(shape: &[usize], times: u64, lies: usize) -> usize {
    let seeds = (0..times).map(|seed| Dice(seed ^ (shape.len() as u64) << 32));
    seeds
        .map(|mut dice| every_operation(&mut dice, shape, lies).unwrap_or(0))
        .sum()
}

#[test]
fn a_tensor_that_tells_the_truth_is_quantized() {
    assert!(every_operation_many_times(&[4, 6], 100, 0) > 1000);
}

#[test]
fn a_tensor_that_lies_now_and_then_gives_errors_or_wrong_tensors() {
    for shape in [&[4, 6][..], &[24], &[3, 2, 4], &[0, 3], &[]] {
        every_operation_many_times(shape, 120, 12);
    }
    // Parameters of no group, and more groups than memory holds.
    for shape in [&[1 << 40, 1 << 40, 0][..], &[0, usize::MAX], &[9, 3, 0]] {
        every_operation_many_times(shape, 80, 12);
    }
}

#[test]
fn a_tensor_that_lies_all_the_time_gives_errors_or_wrong_tensors() {
    for lies in [1, 2, 4] {
        every_operation_many_times(&[4, 6], 120, lies);
    }
}

#[test]
fn a_large_tensor_that_lies_gives_errors_or_wrong_tensors() {
    every_operation_many_times(&[8, 10_000], 5, 20);
}

/// A tensor whose mask is never written, or is written and refused.
struct WithoutMask {
    values: [f32; 4],
    /// Whether the mask's memory is written before it is dropped.
    written: bool,
    fails: bool,
}

struct Written<T>(Vec<T>);

impl FloatTensor<Lies> for WithoutMask {
    type Owned = Written<f32>;
    type Int = Written<u8>;
    type Device = HostOnly<Written<f32>, Written<u8>>;

    fn rank(&self) -> usize {
        1
    }

    fn with_host<R>(&self, f: impl FnOnce(HostFloats<'_>) -> Result<R>) -> Result<R> {
        f(HostFloats::new(
            f32::slice(&self.values),
            Layout::row_major(&[4]),
        )?)
    }

    fn int_like(
        &self,
        _: (i64, i64),
        _: &Layout,
        fill: Fill<impl FnOnce(IntSliceMut<'_>) -> Result<()>>,
    ) -> Result<Written<u8>> {
        if self.written {
            drop(fill.into_ints::<u8>()?);
        }
        match self.fails {
            true => Err(Error::NotCalibrated),
            false => Ok(Written(Vec::new())),
        }
    }

    fn float_like(
        &self,
        _: &Layout,
        fill: Fill<impl FnOnce(FloatSliceMut<'_>) -> Result<()>>,
    ) -> Result<Written<f32>> {
        fill.into_floats().map(Written)
    }
}

impl IntTensor<Lies> for Written<u8> {
    type Float = Written<f32>;
    type Device = HostOnly<Written<f32>, Written<u8>>;

    fn with_host<R>(&self, _: impl FnOnce(HostInts<'_>) -> Result<R>) -> Result<R> {
        Err(Error::NotCalibrated)
    }

    fn float_like(
        &self,
        _: FloatType,
        _: &Layout,
        fill: Fill<impl FnOnce(FloatSliceMut<'_>) -> Result<()>>,
    ) -> Result<Written<f32>> {
        fill.into_floats().map(Written)
    }
}

#[test]
fn values_are_given_only_where_the_mask_was_written_with_them() {
    let fake_quantize = |written, fails| {
        let x = WithoutMask {
            values: [0.0, 1.0, 2.0, 3.0],
            written,
            fails,
        };
        Chopi::new(8).unwrap().fake_quantize_with_mask(&x)
    };
    assert!(matches!(
        fake_quantize(false, false),
        Err(Error::Framework {
            backend: "lies",
            ..
        })
    ));
    assert!(fake_quantize(false, true).is_err());
    assert!(fake_quantize(true, true).is_err());
    let (values, mask) = fake_quantize(true, false).unwrap();
    assert_eq!((values.0.len(), mask.0.len()), (4, 0));
}

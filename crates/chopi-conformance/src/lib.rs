//! The tests that every backend of chopi passes: each operation, element type, granularity,
//! symmetry, width and memory layout, with ties, saturation, infinities, NaN, empty tensors and
//! errors, against an [`oracle`] that reads the definitions naively.
//!
//! [`vectors`] compares the other conventions with what the real libraries computed.
//!
//! A backend implements [`Fixture`], which makes its tensors and reads them back, and names it in
//! one line of its tests: `chopi_conformance::suite!(MyFixture);`. [`training`] does so for
//! quantization-aware training.

mod composed;
pub mod data;
mod fixture;
mod moments;
mod not_numbers;
pub mod oracle;
mod scarce;
pub mod suite;
pub mod training;
pub mod vectors;

pub use composed::{Composed, OnDevice};
pub use fixture::{Fixture, Memory};
pub use moments::{Sums, check_moments};
pub use scarce::{LARGE, ScarceMemory, alone, for_each_change, for_each_failure};

/// Defines a test for each part of the suite, run on a [`Fixture`].
#[macro_export]
macro_rules! suite {
    ($fixture:ty) => {
        $crate::suite!($fixture: codes_and_values_are_those_of_the_definition
            every_rounding_is_that_of_the_definition
            the_memory_layout_does_not_matter
            extreme_values_saturate
            constant_groups_come_back_exactly
            nan_is_an_error_that_says_where_or_the_zero_point
            nan_stays_nan_in_fake_quantize
            nan_and_infinities_are_as_documented_in_every_convention
            calibration_refuses_what_has_no_range
            empty_tensors_pass_through_a_calibrated_quantizer
            parameters_of_another_shape_are_refused
            codes_outside_of_the_range_are_refused
            parameters_are_kept_until_reset
            moments_are_those_of_the_definition
        );
    };
    ($fixture:ty: $($name:ident)*) => {$(
        #[test]
        fn $name() {
            $crate::suite::$name::<$fixture>();
        }
    )*};
}

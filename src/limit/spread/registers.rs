//! How many different values, told from 256 bytes: HyperLogLog (Flajolet and others, 2007), with linear counting where
//! few registers are set. The standard error is 1.04 / sqrt(256), 6.5 %.

/// Registers by the first eight bits of a hash; each keeps the longest run of zeros behind them.
pub(super) type Registers = [u8; COUNT];

pub(super) const COUNT: usize = 256;

/// Notes a value by its hash.
pub(super) fn note(registers: &mut Registers, hash: u32) {
    let [register, ..] = hash.to_be_bytes();
    let rank = ((hash << 8).leading_zeros().min(24) + 1)
        .try_into()
        .unwrap_or(u8::MAX);
    if let Some(known) = registers.get_mut(usize::from(register)) {
        *known = rank.max(*known);
    }
}

/// Adds what other registers know.
pub(super) fn merge(registers: &mut Registers, others: &Registers) {
    for (known, other) in registers.iter_mut().zip(others) {
        *known = (*known).max(*other);
    }
}

/// About how many different values were noted.
pub(super) fn estimate(registers: &Registers) -> u32 {
    const ALPHA: f64 = 0.7213 / (1.0 + 1.079 / 256.0);
    const M: f64 = 256.0;
    let sum: f64 = registers
        .iter()
        .map(|rank| 0.5_f64.powi(i32::from(*rank)))
        .sum();
    let raw = ALPHA * M * M / sum;
    let unset = registers.iter().filter(|rank| **rank == 0).count();
    let unset = u16::try_from(unset).map_or(M, f64::from);
    let estimate = if raw <= 2.5 * M && unset > 0.0 {
        M * (M / unset).ln()
    } else {
        raw
    };
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a count, and casts of floats saturate"
    )]
    let whole = estimate.round() as u32;
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A good mixer (the finaliser of splitmix64), so that the test needs no randomness.
    fn hash(value: u64) -> u32 {
        let mut mixed = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        u32::try_from((mixed ^ (mixed >> 31)) >> 32).unwrap()
    }

    fn of(values: std::ops::Range<u64>) -> Registers {
        let mut registers = [0; COUNT];
        values.for_each(|value| note(&mut registers, hash(value)));
        registers
    }

    #[test]
    fn the_estimate_is_within_its_error() {
        for count in [1_u32, 10, 64, 100, 300, 700, 1_000, 10_000, 100_000] {
            let mut worst = 0.0_f64;
            let mut squares = 0.0;
            for run in 0..100 {
                let start = run * 1_000_000;
                let found = estimate(&of(start..start + u64::from(count)));
                let error = (f64::from(found) - f64::from(count)) / f64::from(count);
                worst = worst.max(error.abs());
                squares += error * error;
            }
            let deviation = (squares / 100.0).sqrt();
            assert!(deviation < 0.085, "{count}: {deviation}");
            assert!(worst < 0.30, "{count}: {worst}");
        }
        assert_eq!(estimate(&[0; COUNT]), 0);
    }

    #[test]
    fn what_is_noted_twice_counts_once_and_merged_is_as_noted_together() {
        let mut twice = of(0..500);
        (0..500).for_each(|value| note(&mut twice, hash(value)));
        assert_eq!(twice, of(0..500));
        let mut merged = of(0..400);
        merge(&mut merged, &of(300..900));
        assert_eq!(merged, of(0..900));
    }
}

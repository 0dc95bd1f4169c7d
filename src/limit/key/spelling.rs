//! Spellings of one name: what backends take for the same, here is the same.
//!
//! A backend that folds letters before it looks an account up gives an attacker as many names for it as there are
//! spellings, each with a budget of its own, unless they are folded here as well: by NFKC (accents in one piece or two,
//! letters of full width, ligatures, the long s and the Kelvin sign that Go takes for s and k), and by case. Where a backend
//! tells apart what is folded here, two of its accounts share a budget. That takes nothing from anybody: whoever wants to
//! use up the budget of an account can name it.

use icu_normalizer::ComposingNormalizerBorrowed;

const NFKC: ComposingNormalizerBorrowed<'static> = ComposingNormalizerBorrowed::new_nfkc();

/// The letters of `text`, folded. Twice composed: lower case can part what was in one piece.
pub(in crate::limit) fn folded(text: &str) -> impl Iterator<Item = char> {
    NFKC.normalize_iter(NFKC.normalize_iter(text.chars()).flat_map(lower))
}

/// Of the two small sigmas, which differ by where they stand in a word, the one that a capital turns into.
fn lower(letter: char) -> impl Iterator<Item = char> {
    letter
        .to_lowercase()
        .map(|small| if small == 'ς' { 'σ' } else { small })
}

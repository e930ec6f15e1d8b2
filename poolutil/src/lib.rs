//! Pure address arithmetic.

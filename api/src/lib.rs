//! Types of every kind.

//! Tables of the words and what they become.

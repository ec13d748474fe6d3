#pragma once

#include <cstdint>

namespace moelora::packed {

__extension__ using int128 = __int128;

// Integers modulo the safe prime p = 2^61 - 2373, of which 2 is a primitive root. Every finite
// floating-point number is m * 2^e, hence an element of this field, and taking numbers into it
// keeps sums and products: two expressions that are equal as numbers are equal here, whatever the
// order of summation, and unequal ones are equal with probability of about 2^-61 only. No two
// powers of 2 that occur coincide, as the order of 2 is p - 1. (Modulo 2^61 - 1 it would be 61.)
class Field {
 public:
  static constexpr uint64_t kPrime = (uint64_t{1} << 61) - 2373;

  Field() = default;  // zero
  static Field of(int64_t value);
  static Field of(int128 value);
  static Field of(double value);            // REQUIRES: finite
  static Field power_of_two(int exponent);  // -2400 .. 2400

  uint64_t residue() const { return residue_; }

  friend Field operator+(Field a, Field b);
  friend Field operator-(Field a, Field b);
  friend Field operator*(Field a, Field b);
  Field inverse() const;  // REQUIRES: not zero
  friend bool operator==(const Field&, const Field&) = default;

 private:
  explicit Field(uint64_t residue) : residue_(residue) {}
  uint64_t residue_ = 0;
};

}  // namespace moelora::packed

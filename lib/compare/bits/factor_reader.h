#pragma once

#include <map>
#include <memory>
#include <optional>
#include <tuple>
#include <vector>

#include "lib/compare/bits/bit_pass.h"
#include "lib/compare/bits/block_reader.h"

namespace moelora::packed {

// One expert's factor in memory, by bits.
struct Matrix {
  DType dtype = DType::F32;
  int64_t rank = 0, width = 0;
  std::vector<uint64_t> bits;  // [k][x]

  uint64_t at(int64_t k, int64_t x) const { return bits[static_cast<size_t>(k * width + x)]; }
  double value(int64_t k, int64_t x) const;
  bool is_zero() const;  // of either sign
  friend bool operator==(const Matrix&, const Matrix&) = default;
};
using MatrixPtr = std::shared_ptr<const Matrix>;  // null: there is none

// Every element is f(k, x).
template <class F>
bool is_all(const Matrix& m, F&& f) {
  for (int64_t k = 0; k < m.rank; ++k)
    for (int64_t x = 0; x < m.width; ++x)
      if (m.at(k, x) != f(k, x)) return false;
  return true;
}

Matrix cast_to(const Matrix& m, DType dtype);

// Looks at single factors of both adapters, where the passes found differences. Keeps what it read
// last; not for several threads.
class FactorReader {
 public:
  explicit FactorReader(const Pairings& pairings);

  MatrixPtr packed(size_t pairing, int64_t expert, Side side);
  MatrixPtr source(size_t pairing, int64_t expert, Side side);            // as it is
  MatrixPtr source(size_t pairing, int64_t expert, Side side, DType as);  // cast

  // The first inputs or outputs of every expert's factor (null where there is none).
  static constexpr int64_t kStart = 8;
  using Starts = std::vector<MatrixPtr>;
  Starts packed_starts(size_t pairing, Side side);
  Starts source_starts(size_t pairing, Side side);  // as they are
  MatrixPtr source_start(size_t pairing, int64_t expert, Side side);

  std::optional<size_t> find(const ProjectionKey& key) const;
  const Pairings& pairings() const { return pairings_; }

 private:
  struct Adapter {
    explicit Adapter(const Table& table) : loader(table) {}
    BlockReader loader;
    std::map<std::tuple<size_t, int64_t, Side>, MatrixPtr> kept;
  };
  static MatrixPtr whole(Adapter& from, const Factor* factor, size_t pairing, int64_t expert,
                         Side side);
  static Starts starts(Adapter& from, const Factor* factor, Side side, int64_t e0, int64_t e1);

  const Pairings& pairings_;
  std::map<ProjectionKey, size_t> index_;
  Adapter packed_, source_;
};

}  // namespace moelora::packed

#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "lib/compare/bits/factor_reader.h"
#include "lib/compare/bits/hypotheses.h"

namespace moelora::packed {

// Where one packed factor's elements come from, when they are not the source's of the same place.
struct Explanation {
  enum class Kind : uint8_t {
    own,      // the right factor
    scaled,   // the right factor times `factor`
    sibling,  // gate's where up's belongs, or the reverse
    mistake,  // what `mistake` says
  };
  Kind kind = Kind::own;
  Mistake mistake = Mistake::unknown;
  double factor = 1;
  std::string detail = {};

  static Explanation of(Mistake mistake, std::string detail = {}) {
    return {Kind::mistake, mistake, 1, std::move(detail)};
  }
};

// Explains factors one by one; the likeliest and cheapest explanations are tried first.
class Explainer {
 public:
  Explainer(FactorReader& reader, const BitPass& bits) : reader_(reader), bits_(bits) {}

  // For experts of a pairing whose factor differs: which expert's factor lies there, as far as the
  // first inputs or outputs show. A factor that no expert has is not in the map.
  std::map<int64_t, int64_t> holders(size_t pairing, Side side,
                                     const std::vector<int64_t>& experts);
  // All of these experts hold one and the same matrix, in the packed adapter alone.
  bool all_alike(size_t pairing, Side side, const std::vector<int64_t>& experts);

  Explanation find(size_t pairing, int64_t expert, Side side);

  // Whether the packed factor is, element by element, that of another place.
  bool holds(size_t pairing, int64_t expert, Side side, const ProjectionKey& other,
             int64_t other_expert);

 private:
  struct Question {
    size_t pairing;
    int64_t expert;
    Side side;
    const Pairing* p;
    MatrixPtr whole;     // the packed factor
    MatrixPtr found;     // its ranks that should hold the source's
    MatrixPtr expected;  // the source's, in the packed type
  };
  using Answer = std::optional<Explanation>;

  Answer zero(const Question& q);
  Answer ranks(const Question& q);
  Answer rounding(const Question& q);
  Answer overflow(const Question& q);
  Answer scaled(const Question& q);
  Answer other_projections(const Question& q);
  Answer rows(const Question& q);
  Answer order(const Question& q);
  Answer exchanged(const Question& q);
  Answer elsewhere(const Question& q);
  Answer few(const Question& q);

  bool blocks_exchanged(const Question& q, int64_t at);
  std::vector<Matrix> whole_starts(const Question& q);
  bool starts_like(const Question& q, size_t other);
  MatrixPtr own_ranks(const Pairing& p, int64_t expert, const MatrixPtr& whole) const;
  MatrixPtr source_of(const ProjectionKey& key, int64_t expert, Side side, DType as);
  std::vector<std::vector<uint64_t>> starts(size_t pairing, Side side, bool packed, DType as);

  FactorReader& reader_;
  const BitPass& bits_;
  Mistake order_ = Mistake::b_order_expert_major;
};

}  // namespace moelora::packed

#include "kernels/rows.h"

#include <algorithm>
#include <array>
#include <limits>

#include "kernels/status.h"

namespace moelora::kernels {
namespace {

// What a GEMM costs beside its rows: about the rows that take as long as reading its weights.
constexpr int64_t kRowsOfAWeightRead = 128;

bool held(int32_t expert, int64_t experts) { return expert >= 0 && expert < experts; }

std::vector<int64_t> rows_by_expert(const BatchInput& input, int64_t experts) {
  std::vector<int64_t> out(static_cast<size_t>(experts));
  for (int64_t p = 0; p < input.tokens * input.top_k; ++p)
    if (held(input.experts[p], experts)) ++out[static_cast<size_t>(input.experts[p])];
  return out;
}

void make_slots(const std::vector<int64_t>& rows, Path path, RowPlan& out) {
  out.compact = path == Path::per_expert;
  out.rows_each = (*std::max_element(rows.begin(), rows.end()) + 7) / 8 * 8;
  for (size_t e = 0; e < rows.size(); ++e) {
    if (rows[e] == 0 && path != Path::batched) continue;
    out.slots.push_back({static_cast<int64_t>(e), out.rows, rows[e], 0});
    out.rows += out.compact ? rows[e] : out.rows_each;
  }
  if (out.rows_to_read() > std::numeric_limits<int32_t>::max())
    stop(Status::bad_argument, "more rows than are counted here; use fewer tokens");
}

void place_pairs(const BatchInput& input, int64_t experts, RowPlan& out) {
  std::vector<int64_t> next(static_cast<size_t>(experts));
  for (const RowPlan::Slot& slot : out.slots)
    next[static_cast<size_t>(slot.expert)] = slot.first_row;
  out.pair_of_row.assign(static_cast<size_t>(out.rows), -1);
  for (int64_t p = 0; p < input.tokens * input.top_k; ++p) {
    int64_t row = -1;
    if (held(input.experts[p], experts)) {
      row = next[static_cast<size_t>(input.experts[p])]++;
      out.pair_of_row[static_cast<size_t>(row)] = static_cast<int32_t>(p);
    }
    out.row_of_pair.push_back(static_cast<int32_t>(row));
  }
}

void deal(int streams, RowPlan& out) {
  std::vector<RowPlan::Slot*> order;
  for (RowPlan::Slot& slot : out.slots) order.push_back(&slot);
  std::stable_sort(order.begin(), order.end(),
                   [](const auto* a, const auto* b) { return a->rows > b->rows; });
  const auto slots = static_cast<int>(out.slots.size());
  out.lanes = std::clamp(std::min(streams, slots), 1, kMaxStreams);
  std::array<int64_t, kMaxStreams> load = {};
  for (RowPlan::Slot* slot : order) {
    const auto least = std::min_element(load.begin(), load.begin() + out.lanes);
    slot->lane = static_cast<int>(least - load.begin());
    *least += slot->rows + kRowsOfAWeightRead;
  }
}

}  // namespace

RowPlan plan_rows(const BatchInput& input, int64_t experts, const Plan& plan) {
  if (input.tokens * input.top_k > std::numeric_limits<int32_t>::max())
    stop(Status::bad_argument, "more choices than are counted here; use fewer tokens");
  RowPlan out;
  make_slots(rows_by_expert(input, experts), plan.path, out);
  place_pairs(input, experts, out);
  deal(plan.path == Path::per_expert ? plan.streams : 1, out);
  return out;
}

}  // namespace moelora::kernels

#include "lib/engine/sglang/copy/copied_values.h"

#include <algorithm>

#include "lib/engine/sglang/pool/pool.h"

namespace moelora::sglang {

void Runs::add(int64_t first, int64_t end) {
  if (first >= end) return;
  if (!runs_.empty()) {
    auto& last = runs_.back();
    if (first >= last.first && first <= last.second) {
      last.second = std::max(last.second, end);
      return;
    }
    for (const auto& run : runs_)
      if (first >= run.first && end <= run.second) return;
  }
  runs_.emplace_back(first, end);
}

bool Runs::covers(int64_t size) const {
  if (runs_.size() == 1) return runs_[0].first == 0 && runs_[0].second >= size;
  std::vector<std::pair<int64_t, int64_t>> sorted = runs_;
  std::sort(sorted.begin(), sorted.end());
  int64_t reached = 0;
  for (const auto& run : sorted) {
    if (run.first > reached) return false;
    reached = std::max(reached, run.second);
  }
  return reached >= size;
}

void CopiedValues::write(const Write& write) {
  Of& of = of_[static_cast<size_t>(write.source)];
  of.rows.add(write.source_row, write.source_row + write.rows);
  of.columns.add(write.source_column, write.source_column + write.columns);
  if (write.source_expert >= 0) of.experts.add(write.source_expert, write.source_expert + 1);
  if (of.buffer.empty()) of.buffer = buffer_name(write.layer, write.buffer, write.is_a);
  of.misplaced |= !write.in_place;
  of.expert |= write.expert >= 0;
}

bool CopiedValues::is_whole(int32_t source) const {
  const Of& of = at(source);
  const Shape& shape = sources_[static_cast<size_t>(source)].shape;
  if (shape.size() < 2 || shape.size() > 3) return false;
  if (!of.rows.covers(shape[shape.size() - 2]) || !of.columns.covers(shape.back())) return false;
  return shape.size() == 2 || of.experts.covers(shape[0]);
}

bool CopiedValues::all_whole() const {
  for (size_t i = 0; i < of_.size(); ++i)
    if (!of_[i].rows.empty() && (of_[i].misplaced || !is_whole(static_cast<int32_t>(i))))
      return false;
  return true;
}

}  // namespace moelora::sglang

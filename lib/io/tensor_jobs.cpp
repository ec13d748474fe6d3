#include "lib/io/tensor_jobs.h"

#include <algorithm>
#include <functional>
#include <numeric>

#include "lib/io/source_range.h"

namespace moelora {
namespace {

// Source runs this close are one: reading the gap costs less than a second read.
constexpr int64_t kNearBytes = 64 << 10;
constexpr size_t kMostRuns = 64;

struct Touch {
  SourceRange range;
  size_t item;
};

void add_touches(const Tensor& tensor, const Block& block, std::vector<Touch>& out) {
  const int64_t width = dtype_bytes(tensor.dtype());
  for (const Part& part : parts_of(tensor, block.first, block.count)) {
    const SourceRange origin = origin_of(*part.source);
    for (const Run& run : runs_of(part, kNearBytes / width, kMostRuns))
      out.push_back({{origin.space, origin.begin + static_cast<uint64_t>(run.begin * width),
                      origin.begin + static_cast<uint64_t>(run.end * width)},
                     block.item});
  }
}

void sort_touches(std::vector<Touch>& touches) {
  std::sort(touches.begin(), touches.end(), [](const Touch& a, const Touch& b) {
    if (a.range.space != b.range.space) return std::less<>()(a.range.space, b.range.space);
    return a.range.begin < b.range.begin;
  });
}

// Calls f(first, last, bytes) for every maximal chain of overlapping touches. Sorts them.
template <class F>
void for_each_overlap(std::vector<Touch>& touches, F&& f) {
  sort_touches(touches);
  for (auto first = touches.begin(); first != touches.end();) {
    uint64_t end = first->range.end;
    auto last = first + 1;
    for (; last != touches.end() && last->range.space == first->range.space &&
           last->range.begin < end;
         ++last)
      end = std::max(end, last->range.end);
    f(first, last, end - first->range.begin);
    first = last;
  }
}

uint64_t union_bytes(std::vector<Touch> touches) {
  uint64_t sum = 0;
  for_each_overlap(touches, [&](auto, auto, uint64_t bytes) { sum += bytes; });
  return sum;
}

class Sets {
 public:
  explicit Sets(size_t n) : parent_(n) { std::iota(parent_.begin(), parent_.end(), size_t{0}); }
  size_t root(size_t i) {
    while (parent_[i] != i) i = parent_[i] = parent_[parent_[i]];
    return i;
  }
  // The smaller index stays the root, so that a group is known by its first tensor.
  void join(size_t a, size_t b) {
    a = root(a), b = root(b);
    parent_[std::max(a, b)] = std::min(a, b);
  }

 private:
  std::vector<size_t> parent_;
};

struct Group {
  std::vector<size_t> items;
  uint64_t result = 0, source = 0;  // bytes
  uint64_t cost() const { return result + source; }
};

std::vector<Group> group_by_source(TensorList tensors) {
  std::vector<Touch> touches;
  for (size_t i = 0; i < tensors.size(); ++i)
    add_touches(*tensors[i], {i, 0, tensors[i]->elements()}, touches);
  Sets sets(tensors.size());
  std::vector<std::pair<size_t, uint64_t>> source_bytes;
  for_each_overlap(touches, [&](auto first, auto last, uint64_t bytes) {
    for (auto at = first; at != last; ++at) sets.join(first->item, at->item);
    source_bytes.emplace_back(first->item, bytes);
  });
  std::vector<Group> groups(tensors.size());
  for (size_t i = 0; i < tensors.size(); ++i) {
    Group& group = groups[sets.root(i)];
    group.items.push_back(i);
    group.result += tensors[i]->bytes();
  }
  for (const auto& [item, bytes] : source_bytes) groups[sets.root(item)].source += bytes;
  std::erase_if(groups, [](const Group& group) { return group.items.empty(); });
  return groups;
}

// Cuts every tensor of a group into `windows` shares, at rows of its slowest axes.
class Windows {
 public:
  Windows(TensorList tensors, const Group& group, uint64_t windows)
      : tensors_(tensors), group_(group), windows_(static_cast<int64_t>(windows)) {}

  std::vector<Job> jobs() const {
    std::vector<Job> out;
    for (int64_t w = 0; w < windows_; ++w) {
      Job job;
      for (const size_t item : group_.items) {
        const int64_t begin = boundary(*tensors_[item], w), end = boundary(*tensors_[item], w + 1);
        if (end > begin) job.blocks.push_back({item, begin, end - begin});
      }
      if (!job.blocks.empty()) out.push_back(std::move(job));
    }
    return out;
  }

 private:
  int64_t boundary(const Tensor& tensor, int64_t window) const {
    int64_t rows = 1;
    for (size_t a = 0; a < tensor.axes().size() && rows < windows_; ++a) rows *= tensor.axes()[a];
    const int64_t row = rows / windows_ * window + rows % windows_ * window / windows_;
    return rows == 0 ? 0 : row * (tensor.elements() / rows);
  }

  TensorList tensors_;
  const Group& group_;
  int64_t windows_;
};

class Planner {
 public:
  Planner(TensorList tensors, const JobLimits& limits) : tensors_(tensors), limits_(limits) {}

  std::vector<Job> plan() {
    const std::vector<Group> groups = group_by_source(tensors_);
    for (size_t first = 0; first < groups.size();) {
      const size_t last = interleaved_end(groups, first);
      if (last - first > 1 && !pack_all({groups.data() + first, last - first}))
        for (size_t g = first; g < last; ++g) plan_alone(groups[g]);
      else if (last - first == 1)
        plan_alone(groups[first]);
      first = last;
    }
    flush();
    return std::move(jobs_);
  }

 private:
  // Groups [first, result) lie in one stretch of the file that no other group lies in.
  static size_t interleaved_end(const std::vector<Group>& groups, size_t first) {
    size_t reach = groups[first].items.back(), g = first + 1;
    for (; g < groups.size() && groups[g].items.front() < reach; ++g)
      reach = std::max(reach, groups[g].items.back());
    return g;
  }

  bool pack_all(std::span<const Group> groups) {
    Job job;
    for (const Group& group : groups) {
      job.cost += group.cost();
      for (const size_t item : group.items) job.blocks.push_back(whole(item));
    }
    if (job.cost > limits_.most) return false;
    std::sort(job.blocks.begin(), job.blocks.end(),
              [](const Block& a, const Block& b) { return a.item < b.item; });
    if (job.cost > limits_.target || packed_.cost + job.cost > limits_.target) flush();
    packed_.cost += job.cost;
    std::move(job.blocks.begin(), job.blocks.end(), std::back_inserter(packed_.blocks));
    return true;
  }

  void plan_alone(const Group& group) {
    if (group.cost() <= limits_.target)
      pack(group);
    else if (!cut_freely(group))
      keep_or_cut(group);
  }

  void pack(const Group& group) {
    if (packed_.cost + group.cost() > limits_.target) flush();
    for (const size_t item : group.items) packed_.blocks.push_back(whole(item));
    packed_.cost += group.cost();
  }

  void flush() {
    if (!packed_.blocks.empty()) jobs_.push_back(std::move(packed_));
    packed_ = {};
  }

  // Keeps the order of the files: what was packed so far goes first.
  void add(std::vector<Job> jobs) {
    flush();
    std::move(jobs.begin(), jobs.end(), std::back_inserter(jobs_));
  }

  bool cut_freely(const Group& group) {
    std::vector<Job> jobs = Windows(tensors_, group, share(group.cost(), limits_.target)).jobs();
    uint64_t source = 0;
    for (Job& job : jobs) {
      const uint64_t bytes = source_bytes(job);
      source += bytes;
      job.cost = bytes + result_bytes(job);
    }
    if (source > group.source + group.source / 16) return false;
    add(std::move(jobs));
    return true;
  }

  void keep_or_cut(const Group& group) {
    if (group.cost() <= limits_.most) {
      Job job{{}, group.cost()};
      for (const size_t item : group.items) job.blocks.push_back(whole(item));
      return add({std::move(job)});
    }
    // A third for the result leaves two thirds for the source bytes and what lies between them.
    std::vector<Job> jobs = Windows(tensors_, group, share(3 * group.result, limits_.most)).jobs();
    for (Job& job : jobs) job.cost = limits_.most;
    add(std::move(jobs));
  }

  Block whole(size_t item) const { return {item, 0, tensors_[item]->elements()}; }
  static uint64_t share(uint64_t bytes, uint64_t limit) { return (bytes + limit - 1) / limit; }

  uint64_t result_bytes(const Job& job) const {
    uint64_t sum = 0;
    for (const Block& block : job.blocks)
      sum += static_cast<uint64_t>(block.count * dtype_bytes(tensors_[block.item]->dtype()));
    return sum;
  }

  uint64_t source_bytes(const Job& job) const {
    std::vector<Touch> touches;
    for (const Block& block : job.blocks) add_touches(*tensors_[block.item], block, touches);
    return union_bytes(std::move(touches));
  }

  TensorList tensors_;
  JobLimits limits_;
  Job packed_;
  std::vector<Job> jobs_;
};

}  // namespace

std::vector<Job> plan_jobs(TensorList tensors, const JobLimits& limits) {
  return Planner(tensors, limits).plan();
}

}  // namespace moelora

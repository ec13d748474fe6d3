#include "lib/io/tensor_jobs.h"

#include <algorithm>
#include <numeric>

#include "lib/base/parallel.h"
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
  for (const Part& part : parts_of(tensor, block.first, block.count))
    for (const Run& run : runs_of(part, kNearBytes / width, kMostRuns))
      out.push_back({range_of(*part.source, run), block.item});
}

// What all of the tensors touch, in their order.
std::vector<Touch> touches_of(TensorList tensors, int threads) {
  constexpr size_t kPart = 512;
  std::vector<std::vector<Touch>> parts((tensors.size() + kPart - 1) / kPart);
  parallel_for(std::ssize(parts), threads, [&](int64_t p, int) {
    const size_t first = static_cast<size_t>(p) * kPart;
    for (size_t i = first; i < std::min(tensors.size(), first + kPart); ++i)
      add_touches(*tensors[i], {i, 0, tensors[i]->elements()}, parts[static_cast<size_t>(p)]);
  });
  std::vector<Touch> out;
  for (const auto& part : parts) out.insert(out.end(), part.begin(), part.end());
  return out;
}

struct Group {
  std::vector<size_t> items;
  uint64_t result = 0, source = 0;  // bytes
  uint64_t cost() const { return result + source; }
};

std::vector<Group> group_by_source(TensorList tensors, int threads) {
  std::vector<Touch> touches = touches_of(tensors, threads);
  std::vector<size_t> parent(tensors.size());
  std::iota(parent.begin(), parent.end(), size_t{0});
  const auto root = [&](size_t i) {
    while (parent[i] != i) i = parent[i] = parent[parent[i]];
    return i;
  };
  std::vector<std::pair<size_t, uint64_t>> source_bytes;
  for_each_chain(touches, 0, [&](auto first, auto last, uint64_t end) {
    for (auto at = first; at != last; ++at) {
      // The smaller index stays the root, so that a group is known by its first tensor.
      const size_t a = root(first->item), b = root(at->item);
      parent[std::max(a, b)] = std::min(a, b);
    }
    source_bytes.emplace_back(first->item, end - first->range.begin);
  });
  std::vector<Group> groups(tensors.size());
  for (size_t i = 0; i < tensors.size(); ++i) {
    Group& group = groups[root(i)];
    group.items.push_back(i);
    group.result += tensors[i]->bytes();
  }
  for (const auto& [item, bytes] : source_bytes) groups[root(item)].source += bytes;
  std::erase_if(groups, [](const Group& group) { return group.items.empty(); });
  return groups;
}

// The element of `tensor` where its share `window` of `windows` begins: at a row of its slowest
// axes.
int64_t window_begin(const Tensor& tensor, int64_t window, int64_t windows) {
  int64_t rows = 1;
  for (size_t a = 0; a < tensor.axes().size() && rows < windows; ++a) rows *= tensor.axes()[a];
  const int64_t row = rows / windows * window + rows % windows * window / windows;
  return rows == 0 ? 0 : row * (tensor.elements() / rows);
}

// Cuts every tensor of a group into as many shares as `cost` takes jobs of `most`.
std::vector<Job> windows_of(TensorList tensors, const Group& group, uint64_t cost, uint64_t most) {
  const auto windows = static_cast<int64_t>((cost + most - 1) / most);
  std::vector<Job> out;
  for (int64_t w = 0; w < windows; ++w) {
    Job job;
    for (const size_t item : group.items) {
      const int64_t begin = window_begin(*tensors[item], w, windows);
      const int64_t end = window_begin(*tensors[item], w + 1, windows);
      if (end > begin) job.blocks.push_back({item, begin, end - begin});
    }
    if (!job.blocks.empty()) out.push_back(std::move(job));
  }
  return out;
}

class Planner {
 public:
  Planner(TensorList tensors, const JobLimits& limits, int threads)
      : tensors_(tensors), limits_(limits), threads_(threads) {}

  std::vector<Job> plan() {
    const std::vector<Group> groups = group_by_source(tensors_, threads_);
    for (size_t first = 0; first < groups.size();) {
      const size_t last = interleaved_end(groups, first);
      if (last - first == 1 || !pack({groups.data() + first, last - first}, limits_.most))
        for (size_t g = first; g < last; ++g) plan_alone(groups[g]);
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

  bool pack(std::span<const Group> groups, uint64_t most) {
    Job job;
    for (const Group& group : groups) {
      job.cost += group.cost();
      for (const size_t item : group.items)
        job.blocks.push_back({item, 0, tensors_[item]->elements()});
    }
    if (job.cost > most) return false;
    std::sort(job.blocks.begin(), job.blocks.end(),
              [](const Block& a, const Block& b) { return a.item < b.item; });
    if (packed_.cost + job.cost > limits_.target) flush();
    packed_.cost += job.cost;
    std::move(job.blocks.begin(), job.blocks.end(), std::back_inserter(packed_.blocks));
    return true;
  }

  void plan_alone(const Group& group) {
    if (pack({&group, 1}, limits_.target) || cut_freely(group)) return;
    if (!pack({&group, 1}, limits_.most)) cut(group);
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
    std::vector<Job> jobs = windows_of(tensors_, group, group.cost(), limits_.target);
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

  void cut(const Group& group) {
    // A third for the result leaves two thirds for the source bytes and what lies between them.
    std::vector<Job> jobs = windows_of(tensors_, group, 3 * group.result, limits_.most);
    for (Job& job : jobs) job.cost = limits_.most;
    add(std::move(jobs));
  }

  uint64_t result_bytes(const Job& job) const {
    uint64_t sum = 0;
    for (const Block& block : job.blocks)
      sum += static_cast<uint64_t>(block.count * dtype_bytes(tensors_[block.item]->dtype()));
    return sum;
  }

  uint64_t source_bytes(const Job& job) const {
    std::vector<Touch> touches;
    for (const Block& block : job.blocks) add_touches(*tensors_[block.item], block, touches);
    uint64_t sum = 0;
    for_each_chain(touches, 0,
                   [&](auto first, auto, uint64_t end) { sum += end - first->range.begin; });
    return sum;
  }

  TensorList tensors_;
  JobLimits limits_;
  int threads_;
  Job packed_;
  std::vector<Job> jobs_;
};

}  // namespace

std::vector<Job> plan_jobs(TensorList tensors, const JobLimits& limits, int threads) {
  return Planner(tensors, limits, threads).plan();
}

}  // namespace moelora

#pragma once

#include <map>
#include <string>

#include "lib/adapter/layout.h"

namespace moelora {

// What dense factors and those of one expert have to be, `name` for messages. All throw Error.
Error orphan(const std::string& name, Side missing);               // A without B, or B without A
void check_factor(const std::string& name, const Tensor& factor);  // two dims, not empty
void check_ranks(const std::string& name, const Tensor& a, const Tensor& b);
void check_config_rank(const std::string& name, const std::string& found, int64_t rank,
                       const Scaling& config);

// Throws Error for a tensor of more experts than any model has, before it is cut into them.
void check_expert_count(const ExpertTensor& from, int64_t experts);

// Gathers the A and B parts of expert pairs while a layout reads, then checks them together: both
// sides present, ranks equal to each other and to the config's, shapes equal to the base model's.
class ExpertCollector {
 public:
  explicit ExpertCollector(const ReadContext& context) : context_(context) {}

  // One expert's factor. `path` is what PEFT's patterns are matched with.
  void add(const ExpertTensor& from, Projection projection, int64_t expert, Tensor part,
           std::string path);
  // All experts of a layer at once: parts.size() experts, or one part when `shared`.
  void add_all(const ExpertTensor& from, Projection projection, std::vector<Tensor> parts,
               bool shared, std::string path);

  void finish(Adapter& adapter);

 private:
  struct Slot {
    Factor factor;
    std::string name;  // of one tensor, for messages
  };
  struct Pair {
    Slot side[2];
    std::map<int64_t, std::string> path;  // by expert; -1 for all
  };

  Pair& pair(const ExpertTensor& from, Projection projection);
  int64_t count_experts() const;
  void check(const ExpertKey& key, Pair& pair, int64_t experts) const;
  ExpertPair finished(Pair& pair, int64_t experts) const;

  const ReadContext& context_;
  std::map<ExpertKey, Pair> pairs_;
  std::string stem_;
  int64_t factors_ = 0;  // slots held, absent experts' included
};

}  // namespace moelora

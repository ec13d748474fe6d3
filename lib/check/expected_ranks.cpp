#include "lib/check/expected_ranks.h"

#include "lib/check/subject/stacked_file.h"

namespace moelora {
namespace {

class RankChecker {
 public:
  explicit RankChecker(const Subject& subject)
      : subject_(subject), config_(*subject.parsed_config) {}

  std::vector<RankCheck> run() {
    for (const FactorPair& pair : subject_.parts.pairs) {
      const NamedTensor& any = subject_.parts.any(pair);
      if (any.expert && any.expert->form == ExpertPath::Form::parameters) continue;
      const int64_t expected = expected_rank(any);
      for (const int index : {pair.a, pair.b})
        if (index >= 0) check(index, expected);
    }
    if (const auto file = stacked_file(subject_)) check_stacked(*file);
    return std::move(out_);
  }

 private:
  const NamedTensor& tensor(int index) const {
    return subject_.parts.tensors[static_cast<size_t>(index)];
  }

  bool is_parameter(const std::string& module) const {
    const std::string path = module + ".weight";
    for (const std::string& target : config_.target_parameters)
      if (path == target || path.ends_with("." + target)) return true;
    return false;
  }

  // By the name as spelled where a pattern knows it, else by the names the base model has for it.
  int64_t expected_rank(const NamedTensor& any) const {
    const std::string end = is_parameter(any.module) ? ".weight" : "";
    if (const int64_t rank = config_.scaling(any.module + end).rank; rank != config_.r) return rank;
    if (any.linear >= 0) {
      const LinearSpec& linear = subject_.spec()->linears[static_cast<size_t>(any.linear)];
      for (const std::string& name : {linear.memory, linear.hub})
        if (const int64_t rank = config_.scaling(name + end).rank; rank != config_.r) return rank;
    }
    if (any.expert && any.expert->form == ExpertPath::Form::named) {
      const size_t dot = any.module.rfind('.');
      const std::string path =
          any.module.substr(0, dot + 1) + std::string(projection_name(*any.expert->projection));
      return config_.scaling(path).rank;
    }
    return config_.r;
  }

  void check(int index, int64_t expected) {
    const NamedTensor& t = tensor(index);
    const bool stacked = t.expert && t.expert->form == ExpertPath::Form::named;
    if (t.elements() == 0 || t.shape.size() != (stacked ? 3U : 2U)) return;
    const size_t rows = t.shape.size() - 2;
    const int64_t found = t.is_a() ? t.shape[rows] : t.shape[rows + 1];
    if (found != expected) out_.push_back({index, found, expected});
  }

  void check_stacked(const StackedFile& file) {
    if (!file.reading || subject_.spec() == nullptr) return;
    const int64_t experts = subject_.spec()->experts;
    std::vector<int> part_of(subject_.experts.size(), -1);
    for (size_t i = 0; i < subject_.parts.tensors.size(); ++i)
      if (const int at = subject_.parts.tensors[i].expert_tensor; at >= 0)
        part_of[static_cast<size_t>(at)] = static_cast<int>(i);
    for (size_t i = 0; i < file.pairs.size(); ++i) {
      const int64_t rows = file.pairs[i].a->tensor.dim(0);
      const int64_t expected = config_.scaling(parameter_path(file, i, subject_.spec())).rank;
      if (rows == experts * expected || local_experts(file, i, subject_)) continue;
      const int64_t found = experts > 0 && rows % experts == 0 ? rows / experts : 0;
      for (const ExpertTensor* t : {file.pairs[i].a, file.pairs[i].b})
        out_.push_back(
            {part_of[static_cast<size_t>(t - subject_.experts.data())], found, expected});
    }
  }

  const Subject& subject_;
  const AdapterConfig& config_;
  std::vector<RankCheck> out_;
};

}  // namespace

std::vector<RankCheck> wrong_ranks(const Subject& subject) { return RankChecker(subject).run(); }

}  // namespace moelora

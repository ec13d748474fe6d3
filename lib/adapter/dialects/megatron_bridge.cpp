// LoRA layers of NeMo and Megatron-Bridge as their own files name them: linear_in [r, in] and
// linear_out [out, r]. The experts of a rank share one pair, or have 3-D factors. Tensor-parallel
// ranks cut both; what each module's parts are is told by their shapes:
//   linear_in   [r / ranks, in] of a column-parallel module, [r, in / ranks] of a row-parallel one
//   linear_out  [out / ranks, r]

#include <fmt/core.h>

#include <algorithm>
#include <set>

#include "lib/adapter/dialect.h"
#include "lib/adapter/foreign/dialect_tools.h"
#include "lib/adapter/foreign/megatron_modules.h"
#include "lib/adapter/foreign/name_parts.h"
#include "lib/adapter/foreign/rank_files.h"
#include "lib/base/dotted_path.h"
#include "lib/model/base_model.h"

namespace moelora {
namespace {

constexpr std::string_view kIn = ".linear_in.weight", kOut = ".linear_out.weight";

bool owns(std::string_view name) {
  return ends_in_one(name, {".linear_in.weight", ".linear_out.weight", ".linear_in.bias",
                            ".linear_out.bias", ".adapter.weight_magnitude"});
}

// The words of canonical LoRA, an adapter for each projection of a joined module.
struct Canonical {
  std::string_view adapter, joined, own;
};
constexpr Canonical kCanonical[] = {{"adapter_q", "linear_qkv", "linear_q"},
                                    {"adapter_k", "linear_qkv", "linear_k"},
                                    {"adapter_v", "linear_qkv", "linear_v"},
                                    {"adapter_gate", "linear_fc1", "linear_fc1_gate"},
                                    {"adapter_up", "linear_fc1", "linear_fc1_up"}};

// MODULE[.adapter[.adapter_q]].linear_in.weight as the path of a module; "" for another name.
std::string path_of(std::string_view name) {
  const bool in = name.ends_with(kIn);
  if (!in && !name.ends_with(kOut)) return "";
  name.remove_suffix(in ? kIn.size() : kOut.size());
  std::string path(megatron_path(name));
  for (const Canonical& word : kCanonical)
    if (ends_in(path, word.adapter)) {
      path = parent_of(parent_of(path));
      return ends_in(path, word.joined) ? sibling(path, word.own) : "";
    }
  if (leaf_of(path) == "adapter") path = parent_of(path);
  return path == "adapter" ? "" : path;
}

// What one rank holds of a factor.
struct Piece {
  std::string name;  // with its file
  RankFile rank;
  Tensor tensor;
};
using Pieces = std::vector<Piece>;

// The factor of a rank of the experts, or of a module that they do not cut.
struct Joined {
  Tensor tensor;
  int64_t ranks;  // tensor-parallel ones in it
};

class Reader {
 public:
  Reader(const ForeignAdapter& in, Translation& out)
      : spec_(*in.spec),
        out_(out),
        modules_(spec_, GateRows::by_group),
        of_ranks_(in.set == ShardSet::ranks) {}

  void add(const std::string& name, const Tensor& tensor) {
    const RankTensorName parts = of_ranks_ ? split_rank_name(name) : RankTensorName{"", name};
    RankFile rank;
    if (const auto found = parse_rank_file(parts.file)) rank = *found;
    may_be_pipeline_ = may_be_pipeline_ || rank.may_be_pipeline;
    if (rank.names_expert_rank) names_expert_rank_ = name;
    tensor_ranks_.insert(rank.tensor);
    expert_ranks_.insert(rank.expert);
    pieces_[std::string(parts.name)].push_back({name, rank, tensor});
  }

  void finish() {
    refuse_pipeline();
    refuse_lone_rank();
    for (const auto& [name, pieces] : pieces_) put_factor(name, pieces);
    experts_.check();
    out_.notes.insert(out_.notes.end(), notes_.begin(), notes_.end());
  }

 private:
  // Stages number their layers from 0, so that none but a lone one has the last number.
  void refuse_pipeline() const {
    if (!may_be_pipeline_) return;
    int last = -1;
    for (const auto& [name, pieces] : pieces_)
      if (const auto place = find_layer(name)) last = std::max(last, place->layer);
    if (spec_.experts > 0 && last == spec_.layers - 1) return;
    throw Error(pieces_.begin()->second.front().name,
                fmt::format("may be of a pipeline stage, which numbers its layers from 0: the last "
                            "layer here is {}, and this base model has {}",
                            last, spec_.layers),
                std::string(kMegatronExport));
  }

  // Trainers number the ranks of the experts where there are several.
  void refuse_lone_rank() const {
    if (names_expert_rank_.empty() || expert_ranks_.size() > 1) return;
    throw Error(names_expert_rank_,
                "is in a file of one rank of the experts, and those of the others are not here",
                std::string(kCopyAllRanks));
  }

  void put_factor(const std::string& name, const Pieces& pieces) {
    const std::string& shown = pieces.front().name;
    std::string path = path_of(name);
    if (path.empty())
      throw Error(shown,
                  "is not linear_in.weight or linear_out.weight of a module of "
                  "Megatron-Core's decoder",
                  std::string(kMegatronExport));
    const Side side = name.ends_with(kIn) ? Side::A : Side::B;
    std::optional<int64_t> local = take_local_expert(path);
    const MegatronModule& module = modules_.find(shown, path);
    refuse_gated_canonical(shown, path);
    if (module.experts == 0) {
      const Joined whole = join(name, side, pieces, module, tensor_ranks_);
      put_megatron(out_, shown, module, {}, side, whole.tensor, whole.ranks);
    } else if (local) {
      put_local(name, *local, side, pieces, module);
    } else {
      put_experts(name, side, pieces, module);
    }
  }

  void refuse_gated_canonical(const std::string& shown, std::string_view path) {
    if (leaf_of(path) != "linear_q") return;
    const std::string joined = sibling(path, "linear_qkv");
    if (modules_.find(shown, joined).gated_head > 0)
      throw Error(shown, "is q's own adapter beside an output gate, whose order is not known",
                  std::string(kMegatronExport));
  }

  // ---- tensor-parallel ranks ----

  // The pieces in the order of their ranks; of replicas the first.
  static std::map<int64_t, const Piece*> by_tensor_rank(const Pieces& pieces) {
    std::map<int64_t, const Piece*> out;
    for (const Piece& piece : pieces) out.try_emplace(piece.rank.tensor, &piece);
    return out;
  }

  // The rank of the pair: the columns of a linear_out, which nothing cuts.
  int64_t lora_rank(const std::string& name, const Pieces& pieces, Side side) const {
    if (side == Side::B) return pieces.front().tensor.shape().back();
    const std::string twin = name.substr(0, name.size() - kIn.size()) + std::string(kOut);
    const auto found = pieces_.find(twin);
    if (found == pieces_.end() || found->second.front().tensor.rank() < 2)
      throw Error(pieces.front().name, "has no linear_out beside it", std::string(kMegatronExport));
    return found->second.front().tensor.shape().back();
  }

  Joined join(const std::string& name, Side side, const Pieces& pieces,
              const MegatronModule& module, const std::set<int64_t>& expected) const {
    const Tensor& first = pieces.front().tensor;
    const int rank = first.rank();
    const std::string& shown = pieces.front().name;
    if (rank < 2)
      throw Error(shown, fmt::format("is {}, expected two dims", to_string(first.shape())),
                  std::string(kMegatronExport));
    const int64_t r = lora_rank(name, pieces, side);
    const Shape whole = side == Side::A ? Shape{r, module.in} : Shape{module.rows(), r};
    const Shape own = {first.dim(rank - 2), first.dim(rank - 1)};
    if (own == whole) return {first, 1};
    const auto count = static_cast<int64_t>(expected.size());
    const auto is_part = [&](size_t axis) {
      return whole[axis] % count == 0 && own[axis] == whole[axis] / count &&
             own[1 - axis] == whole[1 - axis];
    };
    const bool by_rows = is_part(0) && (side == Side::A || divides_parts(module, count));
    if (count == 1 || (!by_rows && (side == Side::B || !is_part(1))))
      throw Error(shown,
                  fmt::format("is {} of {}, and {} of this base model has {}: ranks are missing, "
                              "or it is another model",
                              to_string(first.shape()),
                              count == 1 ? std::string("one rank")
                                         : fmt::format("{} tensor-parallel ranks", count),
                              module.path, to_string(whole)),
                  {std::string(kCopyAllRanks) + ", or check ", Option::base});
    return {concatenated(shown, pieces, rank - (by_rows ? 2 : 1), expected), count};
  }

  // Of linear_fc1, each rank has a part of gate and one of up.
  static bool divides_parts(const MegatronModule& module, int64_t count) {
    return !module.cut_by_rank ||
           std::all_of(module.parts.begin(), module.parts.end(),
                       [&](const auto& part) { return part.rows % count == 0; });
  }

  static Tensor concatenated(const std::string& shown, const Pieces& pieces, int axis,
                             const std::set<int64_t>& expected) {
    const auto ranks = by_tensor_rank(pieces);
    std::vector<Tensor> parts;
    for (const int64_t rank : expected) {
      const auto found = ranks.find(rank);
      if (found == ranks.end())
        throw Error(shown, fmt::format("has no part of tensor-parallel rank {}", rank),
                    std::string(kCopyAllRanks));
      const Tensor& part = found->second->tensor;
      const Tensor& first = pieces.front().tensor;
      if (part.shape() != first.shape() || part.dtype() != first.dtype())
        throw Error(found->second->name,
                    fmt::format("is {} {}, and {} is {} {}", dtype_name(part.dtype()),
                                to_string(part.shape()), shown, dtype_name(first.dtype()),
                                to_string(first.shape())),
                    std::string(kCopyOneSave));
      parts.push_back(part);
    }
    return Tensor::concat(axis, parts);
  }

  // ---- ranks of the experts ----

  // Of each rank of the experts, joined over the tensor-parallel ones that hold it.
  std::vector<Joined> of_expert_ranks(const std::string& name, Side side, const Pieces& pieces,
                                      const MegatronModule& module) const {
    std::map<int64_t, Pieces> by_rank;
    for (const Piece& piece : pieces) by_rank[piece.rank.expert].push_back(piece);
    std::vector<Joined> out;
    for (const int64_t rank : expert_ranks_) {
      const auto found = by_rank.find(rank);
      if (found == by_rank.end())
        throw Error(pieces.front().name,
                    fmt::format("has no part of expert-parallel rank {}", rank),
                    std::string(kCopyAllRanks));
      out.push_back(join(name, side, found->second, module, tensor_ranks_));
      if (out.back().tensor.shape() != out.front().tensor.shape())
        throw Error(found->second.front().name,
                    fmt::format("is {} of expert-parallel rank {}, and {} of rank 0",
                                to_string(out.back().tensor.shape()), rank,
                                to_string(out.front().tensor.shape())),
                    std::string(kCopyOneSave));
    }
    if (module.experts % static_cast<int64_t>(out.size()) != 0)
      throw Error(pieces.front().name,
                  fmt::format("is of {} ranks of the experts, which do not divide {} experts",
                              out.size(), module.experts),
                  {std::string(kCopyAllRanks) + ", or check ", Option::base});
    return out;
  }

  // All experts of a rank share its pair, or each has its own along the first axis.
  void put_experts(const std::string& name, Side side, const Pieces& pieces,
                   const MegatronModule& module) {
    const std::vector<Joined> ranks = of_expert_ranks(name, side, pieces, module);
    const int64_t local = module.experts / static_cast<int64_t>(ranks.size());
    std::vector<Tensor> parts;
    for (const Joined& of_rank : ranks) {
      const bool shared = of_rank.tensor.rank() == 2;
      parts.push_back(shared ? of_rank.tensor.unsqueeze(0).broadcast(0, local) : of_rank.tensor);
      if (shared) {
        refuse_part_of_ranks(pieces.front().name, static_cast<int64_t>(ranks.size()), module);
        note_shared(ranks.size(), local);
      }
      if (parts.back().dim(0) != local)
        throw Error(pieces.front().name,
                    fmt::format("is {} of {} ranks of the experts, and this base model has {} "
                                "experts",
                                to_string(of_rank.tensor.shape()), ranks.size(), module.experts),
                    {std::string(kCopyAllRanks) + ", or check ", Option::base});
    }
    const Tensor all = parts.size() == 1 ? parts.front() : Tensor::concat(0, parts);
    put_megatron(out_, pieces.front().name, module, {}, side, all, ranks.front().ranks);
  }

  void put_local(const std::string& name, int64_t number, Side side, const Pieces& pieces,
                 const MegatronModule& module) {
    const std::vector<Joined> ranks = of_expert_ranks(name, side, pieces, module);
    const int64_t local = module.experts / static_cast<int64_t>(ranks.size());
    if (number >= local)
      throw Error(pieces.front().name,
                  fmt::format("is of local expert {}, and a rank has {}", number, local),
                  check_base());
    for (size_t i = 0; i < ranks.size(); ++i) {
      const int64_t expert = static_cast<int64_t>(i) * local + number;
      experts_.add(module, pieces.front().name, expert);
      put_megatron(out_, pieces.front().name, module, expert, side, ranks[i].tensor,
                   ranks[i].ranks);
    }
  }

  // Trainings have 2, 4, 8 .. ranks of the experts: three of four would divide 12 experts, and give
  // most of them the pair of others. Where no power of two that is larger divides them, three it
  // is.
  static void refuse_part_of_ranks(const std::string& name, int64_t ranks,
                                   const MegatronModule& module) {
    int64_t power = 1;
    while (power < ranks) power *= 2;
    if (power == ranks || module.experts % power != 0) return;
    throw Error(name,
                fmt::format("is of {} ranks of the experts, which share one pair of factors each: "
                            "the files of {} that had {} would look the same",
                            ranks, ranks == power - 1 ? "all but the last" : "the first", power),
                std::string(kMegatronExport));
  }

  // Nothing in such a file says how many ranks there were: a pair stands for however many experts
  // its rank had.
  void note_shared(size_t ranks, int64_t local) {
    notes_.insert(ranks == 1
                      ? fmt::format("the {} experts of a layer share one pair of factors (not "
                                    "checked: the files do not say how many ranks of the experts "
                                    "the training had, one is taken for all)",
                                    local)
                      : fmt::format("{} experts at a time share one pair of factors (not checked: "
                                    "the files do not say how many ranks of the experts the "
                                    "training had, the {} here are taken for all)",
                                    local, ranks));
  }

  const ModelSpec& spec_;
  Translation& out_;
  MegatronModules modules_;
  const bool of_ranks_;
  std::map<std::string, Pieces> pieces_;  // by the name without the file
  std::set<int64_t> tensor_ranks_, expert_ranks_;
  bool may_be_pipeline_ = false;
  std::string names_expert_rank_;  // a tensor of a file that does
  MegatronExperts experts_;
  std::set<std::string> notes_;
};

void read(const ForeignAdapter& in, Translation& out) {
  const auto first = std::find_if(in.tensors.begin(), in.tensors.end(),
                                  [](const auto& entry) { return owns(entry.first); });
  if (in.spec == nullptr && first == in.tensors.end()) {
    out.tensors = in.tensors;
    return;
  }
  if (in.spec == nullptr)
    throw needs_base(first->first,
                     "is of a module of Megatron-Core, which joins several of the "
                     "base model's by their heads and widths");
  Reader reader(in, out);
  for (const auto& [name, tensor] : in.tensors)
    if (owns(name) || names_megatron(name) || in.set == ShardSet::ranks)
      reader.add(name, tensor);
    else
      out.tensors.emplace(name, tensor);
  reader.finish();
}

}  // namespace

const Dialect dialects::megatron_bridge = {
    .id = "megatron-bridge",
    .whose = "NeMo or Megatron-Bridge",
    .names = "adapter.linear_in.weight, adapter.linear_out.weight",
    .shapes = "linear_in [r, in], linear_out [out, r]; of experts 2-D shared or 3-D; rank files",
    .sources =
        "Megatron-Bridge 29836cce and newer (peft/utils.py, peft_bridge.py, "
        "param_mapping.py), verl 23b87164, miles",
    .advice = "",
    .owns = owns,
    .read = read,
};

}  // namespace moelora

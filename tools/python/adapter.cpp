#include <nanobind/stl/pair.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/tuple.h>

#include <map>
#include <memory>
#include <tuple>

#include "tools/python/call.h"
#include "tools/python/mapped_file.h"
#include "tools/python/module.h"

namespace moelora::python {
namespace {

// rank, alpha, scale.
using Scale = std::tuple<int64_t, double, double>;

Scale scale_of(const Scaling& scaling) { return {scaling.rank, scaling.alpha, scaling.value()}; }

// module, A, B, scale.
std::vector<std::tuple<std::string, Tensor, Tensor, Scale>> dense(const Adapter& adapter) {
  std::vector<std::tuple<std::string, Tensor, Tensor, Scale>> out;
  for (const auto& [module, pair] : adapter.dense)
    out.emplace_back(module, pair.a, pair.b, scale_of(pair.scaling));
  return out;
}

// An adapter's experts of one layer and projection.
struct Experts {
  int64_t count = 0;
  std::string module;  // "model.layers.0.mlp.experts.gate_proj"
  ExpertPair pair;

  const Tensor& factor(bool b, int64_t expert) const {
    if (expert < 0 || expert >= count) throw nb::index_error("no such expert");
    return (b ? pair.b : pair.a).at(expert);
  }
  Scale scale(int64_t expert) const {
    if (expert < 0 || expert >= count) throw nb::index_error("no such expert");
    return scale_of(pair.scaling_of(expert));
  }
};

std::vector<std::tuple<int, std::string, Experts>> experts(const Adapter& adapter) {
  std::vector<std::tuple<int, std::string, Experts>> out;
  for (const auto& [key, pair] : adapter.experts) {
    std::string name(projection_name(key.projection));
    Experts of{adapter.expert_count, adapter.stem(key.layer) + "." + name, pair};
    out.emplace_back(key.layer, std::move(name), std::move(of));
  }
  return out;
}

// name, kind, tensor.
std::vector<std::tuple<std::string, std::string, Tensor>> extras(const Adapter& adapter) {
  std::vector<std::tuple<std::string, std::string, Tensor>> out;
  for (const auto& [name, extra] : adapter.extras)
    out.emplace_back(name, std::string(extra_kind_name(extra.kind)), extra.tensor);
  return out;
}

// An adapter and the files that its tensors lie in.
struct LoadedAdapter {
  Adapter adapter;
  std::map<uintptr_t, std::shared_ptr<MappedFile>> files;  // by Tensor.files

  explicit LoadedAdapter(Adapter loaded);
  void map(const Tensor& tensor);
};

void LoadedAdapter::map(const Tensor& tensor) {
  for (const File* file : files_of(tensor)) {
    auto& mapped = files[reinterpret_cast<uintptr_t>(file)];
    if (!mapped) mapped = std::make_shared<MappedFile>(*file);
  }
}

LoadedAdapter::LoadedAdapter(Adapter loaded) : adapter(std::move(loaded)) {
  for (const auto& [module, pair] : adapter.dense) map(pair.a), map(pair.b);
  for (const auto& [key, pair] : adapter.experts)
    for (const Factor* factor : {&pair.a, &pair.b})
      for (const Tensor& part : factor->parts) map(part);
  for (const auto& [name, extra] : adapter.extras) map(extra.tensor);
}

nb::dict files(const LoadedAdapter& loaded) {
  nb::dict out;
  for (const auto& [key, file] : loaded.files) out[nb::cast(key)] = nb::cast(file);
  return out;
}

LoadedAdapter load_path(const std::string& path, const nb::dict& options) {
  const Words words(options);
  LoadOptions how = in_python(words, [&] { return load_options(words); });
  return call(words, nb::none(), [&](const JobControl& job) {
    how.job = job;
    return LoadedAdapter(load(path, how));
  });
}

}  // namespace

void bind_adapter(nb::module_& module) {
  nb::class_<Experts>(module, "Experts")
      .def_ro("count", &Experts::count)
      .def_ro("module", &Experts::module)
      .def_prop_ro("shared_a", [](const Experts& e) { return e.pair.a.shared; })
      .def_prop_ro("shared_b", [](const Experts& e) { return e.pair.b.shared; })
      .def("a", [](const Experts& e, int64_t expert) { return e.factor(false, expert); })
      .def("b", [](const Experts& e, int64_t expert) { return e.factor(true, expert); })
      .def("scale", &Experts::scale);
  using Loaded = LoadedAdapter;
  nb::class_<Loaded>(module, "LoadedAdapter")
      .def_prop_ro("config", [](const Loaded& a) { return a.adapter.config.json.dump(); })
      .def_prop_ro("expert_count", [](const Loaded& a) { return a.adapter.expert_count; })
      .def("files", files, "By what a tensor calls them.")
      .def("dense", [](const Loaded& a) { return dense(a.adapter); })
      .def("experts", [](const Loaded& a) { return experts(a.adapter); })
      .def("extras", [](const Loaded& a) { return extras(a.adapter); });
  module.def("load", load_path);
}

}  // namespace moelora::python

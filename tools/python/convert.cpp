#include "tools/python/call.h"
#include "tools/python/module.h"
#include "tools/python/result.h"
#include "tools/python/tensors.h"

namespace moelora::python {
namespace {

std::string inspect_path(const std::string& path, const nb::dict& options) {
  const Words words(options);
  LoadOptions how = in_python(words, [&] { return load_options(words); });
  return call(words, nb::none(), [&](const JobControl& job) {
    how.job = job;
    return inspection_json(inspect(path, how));
  });
}

nb::dict convert_path(const std::string& in, const std::string& out, const nb::dict& options,
                      nb::object progress) {
  const Words words(options);
  ConvertOptions how = in_python(words, [&] { return convert_options(words); });
  return result_dict(call(words, std::move(progress), [&](const JobControl& job) {
    how.job = job;
    return convert(in, out, how);
  }));
}

nb::dict convert_tensors(const nb::list& named, const std::string& config, const std::string& out,
                         const nb::dict& options, nb::object progress) {
  const Words words(options);
  ConvertOptions how = in_python(words, [&] { return convert_options(words); });
  const BorrowedTensors given = in_python(words, [&] { return borrowed_tensors(named); });
  return result_dict(call(words, std::move(progress), [&](const JobControl& job) {
    how.job = job;
    return convert(given.tensors, config, out, how);
  }));
}

nb::list path_texts(const std::vector<std::string>& paths) {
  nb::list out;
  for (const std::string& path : paths) out.append(path_text(path));
  return out;
}

nb::dict base_dict(const BaseConversionReport& made) {
  nb::dict out;
  out["family"] = made.family;
  out["from_"] = made.from;
  out["to"] = made.to;
  out["expert_layers"] = made.expert_layers;
  out["tensors"] = made.tensors;
  out["bytes"] = made.bytes;
  out["verified"] = made.verified;
  out["changes"] = made.changes;
  out["files"] = path_texts(made.files);
  out["warnings"] = made.warnings;
  out["left_out"] = made.left_out;
  out["notes"] = made.notes;
  out["left_behind"] = path_text(made.left_behind);
  return out;
}

nb::dict convert_base_path(const std::string& in, const std::string& out, const nb::dict& options,
                           nb::object progress) {
  const Words words(options);
  BaseConversion how = in_python(words, [&] { return base_conversion(words); });
  how.in = in;
  how.out = out;
  return base_dict(call(words, std::move(progress), [&](const JobControl& job) {
    how.job = job;
    return convert_base(how);
  }));
}

}  // namespace

nb::dict result_dict(const ConvertResult& made) {
  nb::dict out;
  out["layout"] = made.layout;
  out["tensors"] = made.tensors.size();
  out["bytes"] = made.bytes;
  out["config"] = made.config;
  out["notes"] = made.notes;
  out["verified"] = made.verified;
  out["same_product"] = made.same_product;
  out["repaired"] = made.repaired;
  out["server"] = made.server;
  out["tp_rank"] = made.tp_rank;
  out["left_behind"] = path_text(made.left_behind);
  return out;
}

void bind_convert(nb::module_& module) {
  module.def("inspect", inspect_path);
  module.def("convert", convert_path, nb::arg(), nb::arg(), nb::arg(), nb::arg().none());
  module.def("convert_base", convert_base_path, nb::arg(), nb::arg(), nb::arg(), nb::arg().none());
  module.def("convert_tensors", convert_tensors, nb::arg(), nb::arg(), nb::arg(), nb::arg(),
             nb::arg().none());
}

}  // namespace moelora::python

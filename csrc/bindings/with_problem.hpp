// From the name of a problem to its compiled kernel.
#pragma once

#include <pybind11/pybind11.h>

#include <string>

#include "sgdmc/problems.hpp"

namespace sgdmc::bindings {

// Calls body(problem) with the compiled problem of this name.
template <class Body>
void with_problem(const std::string& kind, const double* records, std::size_t n, std::size_t stride,
                  std::size_t dim, Body&& body) {
  using sgdmc::Link;
  using sgdmc::LinearModel;
  const bool planar = dim == 2 && stride == 4;
  if (kind == "least_squares" && planar) return body(LinearModel<Link::identity, 2>{records, n, stride, dim});
  if (kind == "least_squares") return body(LinearModel<Link::identity, 0>{records, n, stride, dim});
  if (kind == "logistic" && planar) return body(LinearModel<Link::logistic, 2>{records, n, stride, dim});
  if (kind == "logistic") return body(LinearModel<Link::logistic, 0>{records, n, stride, dim});
  if (kind == "sine" && dim == 2 && stride == 2) return body(sgdmc::SineModel{records, n});
  throw pybind11::value_error("no such problem");
}

}  // namespace sgdmc::bindings

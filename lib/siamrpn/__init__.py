"""SiamRPN++ (thesis section 3.1): network, PySOT's weights, crops, anchors and the tracker."""
